//! Draining with many keys stored.
//!
//! The store is made once for each size, below the build's folder, and copied for each drain. It is what a daemon leaves
//! after so many messages with random ids over half a week: generations of the size that the daemon makes them, each in the
//! order of its keys, and a part of one in `recent`. The daemon itself makes the empty file, so the schema is its own.
//!
//! After a start the daemon looks at every old record once, a thousand ten times a second; the drain runs beside that.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use crate::contestants::{Warrend, fill, temporary};
use crate::goals::Figures;
use crate::measure::{median, watch};
use crate::support::broker::Vhost;
use crate::support::{random_uuid, wait_until};
use crate::{ACK_BATCH, MESSAGES, NAME, PREFETCH, Plan, tree};

/// Records of a generation (`src/store/ledger.rs`).
const GENERATION: u32 = 50_000;
/// Records in `recent`.
const YOUNG: u32 = 25_000;
/// Messages of one drain, of the usual number.
const PART: f64 = 0.5;
/// How long the daemon may take to open the store.
const TOO_LONG: Duration = Duration::from_secs(120);

/// All rounds, and what they come to.
pub fn run(plan: &Plan, figures: &mut Figures) {
    let messages = ((plan.messages.min(MESSAGES * 10)) as f64 * PART) as u32;
    println!("\nDraining {messages} messages with discard, by stored keys; new ids are random (UUIDv4)\n");
    let templates: Vec<(u32, PathBuf)> =
        plan.millions.iter().map(|millions| (*millions, template(*millions))).collect();
    println!(
        "{:>5}  {:>8}  {:>10}  {:>8}  {:>9}  {:>8}",
        "round", "M keys", "messages/s", "CPU us", "opening s", "peak MiB"
    );
    let mut rates: Vec<(u32, Vec<f64>)> = plan.millions.iter().map(|millions| (*millions, Vec::new())).collect();
    for round in 1..=plan.rounds {
        let mut order: Vec<usize> = (0..templates.len()).collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for index in order {
            let (millions, template) = &templates[index];
            let drained = drain(template, messages);
            println!(
                "{round:>5}  {millions:>8}  {:>10.0}  {:>8.1}  {:>9.2}  {:>8.1}",
                drained.rate, drained.cpu, drained.opening, drained.peak
            );
            rates[index].1.push(drained.rate);
        }
    }
    let of = |wanted: u32| rates.iter().find(|(millions, _)| *millions == wanted).map(|(_, rates)| rates);
    if let (Some(none), Some(ten)) = (of(0), of(10)) {
        figures.stored = Some(median(none.iter().zip(ten).map(|(none, ten)| ten / none).collect()));
    }
}

struct Drained {
    rate: f64,
    cpu: f64,
    /// Seconds from the start of the process until it is connected and the job is ready.
    opening: f64,
    peak: f64,
}

fn drain(template: &Path, messages: u32) -> Drained {
    let vhost = Vhost::new();
    fill(&vhost, messages, random_uuid);
    let job = format!("prefetch = {PREFETCH}");
    let mut warrend = Warrend::new(&vhost, &job, "discard = true", &format!("batch = {ACK_BATCH}"));
    fs::copy(template, warrend.store().join("warrend.db")).expect("the disk has room for a copy");
    let begin = Instant::now();
    warrend.daemon.spawn(&[]);
    // The template was left with its job paused, so that opening and draining can be told apart.
    wait_until("the job is paused", TOO_LONG, || {
        warrend.is_alive() && warrend.daemon.status().is_some_and(|status| status["jobs"][NAME]["state"] == "paused")
    });
    let opening = begin.elapsed().as_secs_f64();
    let resumed = warrend.daemon.run(&["resume", NAME]);
    assert!(resumed.status.success(), "the job cannot be resumed: {}", String::from_utf8_lossy(&resumed.stderr));
    let measured = watch(&vhost, messages, 1, || warrend.is_alive());
    let peak = tree::peak_mib(warrend.daemon.pid().expect("it runs"));
    warrend.stop(messages);
    tree::nothing_left();
    Drained { rate: measured.rate, cpu: measured.cpu, opening, peak }
}

/// A store with that many million keys, made where it is missing.
fn template(millions: u32) -> PathBuf {
    // Another schema or another layout is another file.
    let steps = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")).expect("the sources are there");
    let mut schema: Vec<String> = steps.flatten().filter_map(|step| fs::read_to_string(step.path()).ok()).collect();
    schema.sort_unstable();
    let mark = schema.concat().bytes().fold(1u32, |mark, byte| mark.wrapping_mul(31).wrapping_add(byte.into()));
    let path = temporary().join(format!("bench-store-{millions}m-{GENERATION}-{mark:08x}.db"));
    if path.exists() {
        return path;
    }
    let vhost = Vhost::new();
    vhost.declare(NAME);
    let mut warrend = Warrend::new(&vhost, "", "discard = true", "");
    warrend.daemon.start();
    let paused = warrend.daemon.run(&["pause", NAME]);
    assert!(paused.status.success(), "the job cannot be paused: {}", String::from_utf8_lossy(&paused.stderr));
    let status = warrend.daemon.terminate();
    assert!(status.success(), "warrend ended with {status}");
    let begin = Instant::now();
    let made = warrend.store().join("warrend.db");
    insert(&made, millions * 1_000_000).expect("the store can be filled");
    fs::rename(&made, &path).expect("both are in one folder's file system");
    println!(
        "made a store with {millions} M keys in {:.0} s: {} MiB",
        begin.elapsed().as_secs_f64(),
        fs::metadata(&path).map_or(0, |file| file.len() >> 20)
    );
    path
}

fn insert(path: &Path, keys: u32) -> rusqlite::Result<()> {
    let connection = Connection::open(path)?;
    // It is a file that can be made again; afterwards it is in WAL mode as the daemon left it.
    connection.pragma_update(None, "synchronous", "off")?;
    connection.pragma_update(None, "journal_mode", "off")?;
    let job: i64 = connection.query_row("SELECT id FROM jobs WHERE name = ?1", [NAME], |row| row.get(0))?;
    let young = keys.min(YOUNG);
    let generations = (keys - young).div_ceil(GENERATION);
    let mut last = 0;
    for generation in 1..=generations {
        let rows = GENERATION.min(keys - young - (generation - 1) * GENERATION);
        let mut keys: Vec<[u8; 17]> = (0..rows).map(|_| packed_key()).collect();
        keys.sort_unstable();
        last += rows;
        connection.execute_batch("BEGIN")?;
        let mut insert = connection.prepare_cached(
            "INSERT INTO records (generation, job, key, attempt, outcome, at, ran) VALUES (?1, ?2, ?3, 1, 3, ?4, 0)",
        )?;
        let at = at(generation, generations);
        for (n, key) in keys.iter().enumerate() {
            insert.execute((generation, job, &key[..], at + n as i64 % 1000))?;
        }
        connection
            .execute("INSERT INTO generations (id, rows, through) VALUES (?1, ?2, ?3)", (generation, rows, last))?;
        connection.execute_batch("COMMIT")?;
    }
    connection.execute_batch("BEGIN")?;
    for n in 1..=young {
        let insert = "INSERT INTO recent (seq, job, key, attempt, outcome, at, ran) VALUES (?1, ?2, ?3, 1, 3, ?4, 0)";
        connection.prepare_cached(insert)?.execute((last + n, job, &packed_key()[..], at(1, 1)))?;
    }
    connection.execute_batch("COMMIT")?;
    connection.pragma_update(None, "journal_mode", "wal")
}

/// A random UUID as the store packs it (`src/task.rs`): a 1, then its bytes.
fn packed_key() -> [u8; 17] {
    let mut key = [1; 17];
    key[1..].copy_from_slice(random_uuid().as_bytes());
    key
}

/// Milliseconds: the generations are spread over the last three days and a half of the fourteen that a key is kept.
fn at(generation: u32, generations: u32) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_millis() as i64;
    let half_week = 84 * 3_600_000;
    now - half_week + half_week * i64::from(generation) / i64::from(generations)
}
