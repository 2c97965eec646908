//! Dead letters in the hands of people: listed, shown, replayed, exported, imported, purged.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use amiquip::{AmqpProperties, AmqpValue, FieldTable};
use serde_json::Value;

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::holds_within;
use crate::support::journal::Journal;

/// The work queue of the job `mail`, and its dead-letter queue.
const WORK: &str = "work";
const DEAD: &str = "mail.dead";

/// A job whose daemon need not run.
const IDLE_JOB: &str = "[jobs.mail]\nqueue = \"work\"\nhandler = { discard = true }\n";

/// Letters as the daemon writes them, in a dead-letter queue without a daemon.
struct Pile {
    vhost: Vhost,
    daemon: Daemon,
}

impl Pile {
    fn new() -> Self {
        let vhost = Vhost::new();
        vhost.declare(WORK);
        vhost.declare(DEAD);
        let daemon = Daemon::new(&vhost, IDLE_JOB);
        Self { vhost, daemon }
    }

    /// With so many letters `id-0`, `id-1` …: every third `rejected`, the others `failed`, a second apart.
    fn of(count: usize) -> Self {
        let pile = Self::new();
        pile.add(0, count);
        pile
    }

    fn add(&self, first: usize, count: usize) {
        let letter = |n: usize| (format!("body {n}").into_bytes(), dead_properties(n));
        self.vhost.publish_all(DEAD, (first..first + count).map(letter));
    }

    /// `warrend dead ...`
    #[track_caller]
    fn dead(&self, arguments: &[&str], code: i32) -> String {
        said(&self.daemon.run(&[&["dead"], arguments].concat()), code)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.dead(arguments, 0)).expect("the command prints JSON")
    }

    /// Waits for what a command handed back: the broker may say that it closed a channel before the queue knows.
    fn wait_for(&self, queue: &str, count: u32) {
        let held = holds_within(BROKER_TIMEOUT, || self.vhost.ready(queue) == Some(count));
        assert!(held, "{queue} has {:?}, not {count}", self.vhost.ready(queue));
    }

    fn folder(&self) -> &Path {
        self.daemon.folder()
    }
}

/// Standard output after success, standard error otherwise.
#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    if code == 0 { out.into_owned() } else { err.into_owned() }
}

fn text(text: &str) -> AmqpValue {
    AmqpValue::LongString(text.to_owned())
}

fn dead_properties(n: usize) -> AmqpProperties {
    let (class, error) = if n.is_multiple_of(3) {
        ("rejected", format!("exit status 65: order {n} is unknown"))
    } else {
        ("failed", format!("exit status 1: trying\nno answer from 10.0.0.{n}"))
    };
    let failed_at = i64::try_from(1_700_000_000_000 + n * 1000).expect("a small number");
    let headers = FieldTable::from([
        ("x-warrend-attempt".to_owned(), AmqpValue::LongLongInt(2)),
        ("x-warrend-base".to_owned(), AmqpValue::LongLongInt(0)),
        ("x-warrend-crashes".to_owned(), AmqpValue::LongLongInt(0)),
        ("x-warrend-first-seen".to_owned(), AmqpValue::LongLongInt(failed_at - 500)),
        ("x-warrend-queue".to_owned(), text(WORK)),
        ("x-warrend-exchange".to_owned(), text("")),
        ("x-warrend-routing-key".to_owned(), text(WORK)),
        ("x-warrend-dead".to_owned(), AmqpValue::LongLongInt(1)),
        ("x-warrend-job".to_owned(), text("mail")),
        ("x-warrend-error".to_owned(), text(&error)),
        ("x-warrend-error-class".to_owned(), text(class)),
        ("x-warrend-failed-at".to_owned(), AmqpValue::LongLongInt(failed_at)),
        ("x-warrend-host".to_owned(), text("host-1")),
    ]);
    with_id(&format!("id-{n}")).with_headers(headers)
}

/// What lies in a queue, in order: id, properties, body. It is taken out.
fn drained(vhost: &Vhost, queue: &str) -> Vec<(String, AmqpProperties, Vec<u8>)> {
    let of = |letter: amiquip::Delivery| {
        (letter.properties.message_id().clone().unwrap_or_default(), letter.properties, letter.body)
    };
    vhost.drain(queue).into_iter().map(of).collect()
}

fn ids(vhost: &Vhost, queue: &str) -> Vec<String> {
    drained(vhost, queue).into_iter().map(|(id, ..)| id).collect()
}

fn expected_ids(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("id-{n}")).collect()
}

#[test]
fn looking_changes_nothing() {
    let pile = Pile::of(2500);
    let list = pile.json(&["list", "mail", "--json"]);
    assert_eq!((&list["schema"], &list["count"]), (&1.into(), &2500.into()), "{list:#}");
    let groups: Vec<_> = list["groups"].as_array().expect("there are groups").iter().collect();
    let told: Vec<_> = groups.iter().map(|group| (group["error"].as_str(), group["count"].as_u64())).collect();
    let failed = (Some("exit status 1: no answer from #.#.#.#"), Some(1666));
    assert_eq!(told, [failed, (Some("exit status 65: order # is unknown"), Some(834))]);
    assert_eq!(list["oldest"], "2023-11-14T22:13:20Z");
    assert_eq!(list["newest"], "2023-11-14T22:54:59Z");

    pile.wait_for(DEAD, 2500);
    let table = pile.dead(&["list", "mail"], 0);
    assert!(table.starts_with("2500 dead letters in mail.dead, failed from 2023-11-14T22:13:20Z to"), "{table}");
    assert!(table.contains("1666  failed       2023-11-14T22:54:58Z  exit status 1: no answer"), "{table}");
    pile.wait_for(DEAD, 2500);
    let show = pile.json(&["show", "mail", "--index", "1500", "--json"]);
    assert_eq!((&show["id"], &show["body"]), (&"id-1499".into(), &"body 1499".into()), "{show:#}");
    pile.wait_for(DEAD, 2500);
    let wanted: &[&str] = &["replay", "mail", "--class", "rejected", "--limit", "20", "--dry-run"];
    assert_eq!(pile.dead(wanted, 0), "would replay 20 dead letters of 2500 to work\n");

    pile.wait_for(DEAD, 2500);
    let file = pile.folder().join("all.ndjson");
    pile.dead(&["export", "mail", &file.to_string_lossy()], 0);
    pile.wait_for(DEAD, 2500);
    let left = drained(&pile.vhost, DEAD);
    for (n, (id, properties, body)) in left.iter().enumerate() {
        assert_eq!((id, body), (&format!("id-{n}"), &format!("body {n}").into_bytes()), "in the order of before");
        assert_eq!(properties, &dead_properties(n));
    }
}

#[test]
fn one_letter_is_shown_whole() {
    let pile = Pile::of(4);
    let binary = with_id("binary").with_content_type("image/png\u{1b}[2J".to_owned());
    pile.vhost.publish(DEAD, vec![0x89, b'P', b'N', b'G', 0], binary);
    let shown = pile.dead(&["show", "mail", "--id", "id-1"], 0);
    for line in [
        "id-1, number 2 of 5 dead letters in mail.dead\n",
        "  class       failed\n  error       exit status 1: trying\n              no answer from 10.0.0.1\n",
        "  failed at   2023-11-14T22:13:21Z on host-1\n  attempts    1, of them 1 since the last replay, 0 crashes\n",
        "\nproperties\n  message_id: id-1\n  delivery_mode: 2\n",
        "  x-warrend-attempt: 2\n",
        "\nbody (6 bytes, unknown type)\nbody 1\n",
    ] {
        assert!(shown.contains(line), "{line:?} in {shown}");
    }
    pile.wait_for(DEAD, 5);
    let shown = pile.dead(&["show", "mail", "--index", "5"], 0);
    assert!(shown.contains("00000000  89 50 4e 47 00 "), "{shown}");
    assert!(!shown.contains('\u{1b}'), "what others wrote cannot steer the terminal: {shown}");
    pile.wait_for(DEAD, 5);
    let json = pile.json(&["show", "mail", "--index", "5", "--json"]);
    assert_eq!((&json["body"], &json["body_base64"]), (&Value::Null, &"iVBORwA=".into()), "{json:#}");

    pile.wait_for(DEAD, 5);
    assert!(pile.dead(&["show", "mail", "--id", "nobody"], 1).contains("there is no dead letter with the id"));
    pile.wait_for(DEAD, 5);
    assert!(pile.dead(&["show", "mail", "--index", "6"], 1).contains("there is no dead letter at 6"));
    pile.wait_for(DEAD, 5);
}

#[test]
fn filters_say_which_letters_move() {
    let check = |filters: &[&str], moved: &[usize]| {
        let pile = Pile::of(10);
        let told = pile.dead(&[&["replay", "mail", "--yes"], filters].concat(), 0);
        assert!(told.starts_with(&format!("replayed {} dead letter", moved.len())), "{told}");
        pile.wait_for(DEAD, u32::try_from(10 - moved.len()).expect("a small number"));
        let copies = drained(&pile.vhost, WORK);
        let found: Vec<_> = copies.iter().map(|(id, ..)| id.clone()).collect();
        assert_eq!(found, expected_ids(moved.iter().copied()), "{filters:?}");
        for (copy, n) in copies.iter().zip(moved) {
            assert_eq!((&copy.1, &copy.2), (&dead_properties(*n), &format!("body {n}").into_bytes()));
        }
        let rest = (0..10).filter(|n| !moved.contains(n));
        assert_eq!(ids(&pile.vhost, DEAD), expected_ids(rest), "{filters:?}: the rest stays in its order");
    };
    check(&[], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    check(&["--class", "rejected"], &[0, 3, 6, 9]);
    check(&["--class", "timeout"], &[]);
    check(&["--error", r"10\.0\.0\.[478]$"], &[4, 7, 8]);
    check(&["--id", "id-8", "--id", "id-2", "--id", "other"], &[2, 8]);
    check(&["--before", "2023-11-14T22:13:23Z"], &[0, 1, 2]);
    check(&["--before", "1h", "--limit", "1"], &[0]);
    check(&["--class", "rejected", "--error", "order [36]", "--limit", "5", "--rate", "100/s"], &[3, 6]);
}

#[test]
fn a_replay_goes_where_it_is_told() {
    let pile = Pile::of(3);
    pile.vhost.declare("elsewhere");
    pile.dead(&["replay", "mail", "--id", "id-1", "--to", "elsewhere", "--yes"], 0);
    assert_eq!(ids(&pile.vhost, "elsewhere"), ["id-1"]);
    // Refused by the broker: nothing leaves.
    let why = pile.dead(&["replay", "mail", "--to", "nowhere", "--yes"], 1);
    assert!(why.contains("queue \"nowhere\" does not exist; 0 dead letters were replayed before"), "{why}");
    pile.wait_for(DEAD, 2);
    let why = pile.dead(&["replay", "mail", "--to", DEAD, "--yes"], 2);
    assert!(why.contains("is the dead-letter queue itself"), "{why}");
    assert_eq!(ids(&pile.vhost, DEAD), ["id-0", "id-2"]);
}

#[test]
fn without_a_terminal_nothing_is_guessed() {
    let pile = Pile::of(3);
    let file = pile.folder().join("some.ndjson");
    let file = file.to_string_lossy();
    pile.dead(&["export", "mail", &file], 0);
    for arguments in [&["replay", "mail"][..], &["purge", "mail"], &["import", "mail", &file]] {
        let why = pile.dead(arguments, 2);
        assert!(why.contains("give --yes"), "{why}");
    }
    pile.wait_for(DEAD, 3);
    assert_eq!(
        pile.dead(&["purge", "mail", "--limit", "2", "--dry-run"], 0),
        "would take 2 dead letters of 3 out of mail.dead\n"
    );
    pile.wait_for(DEAD, 3);
    assert_eq!(pile.vhost.ready(WORK), Some(0));
    assert!(pile.dead(&["list", "post"], 2).contains("there is no job \"post\" in the configuration; it has mail"));
    pile.vhost.delete_queue(DEAD);
    assert!(pile.dead(&["list", "mail"], 1).contains("queue \"mail.dead\" does not exist"));
}

#[test]
fn without_a_broker_the_exit_code_says_so() {
    let daemon = Daemon::with_broker("urls = [\"amqp://guest:guest@127.0.0.1:1\"]", IDLE_JOB);
    for command in [&["list"][..], &["show", "--index", "1"], &["replay", "--yes"], &["purge", "--yes"]] {
        let output = daemon.run(&[&["dead", command[0], "mail"], &command[1..]].concat());
        let why = said(&output, 69);
        // There is no store here to write down in what was tried.
        let why: Vec<&str> = why.lines().filter(|line| !line.starts_with("warrend: note: ")).collect();
        assert!(why.len() == 1 && why[0].contains("cannot reach RabbitMQ"), "{why:?}");
    }
}

#[test]
fn a_purge_is_undone_by_an_import() {
    let pile = Pile::of(7);
    pile.vhost.publish(DEAD, vec![0, 0xff, 10], rich_properties());
    pile.vhost.publish(DEAD, Vec::new(), AmqpProperties::default());
    let told = pile.dead(&["purge", "mail", "--class", "rejected", "--yes"], 0);
    let some = exported(&pile, &told);
    pile.wait_for(DEAD, 6);
    let told = pile.dead(&["purge", "mail", "--yes"], 0);
    let rest = exported(&pile, &told);
    pile.wait_for(DEAD, 0);
    assert_eq!(pile.dead(&["purge", "mail", "--yes"], 0), "no dead letter in mail.dead is meant\n");

    assert_eq!(pile.dead(&["import", "mail", &some, "--yes"], 0), "put 3 dead letters into mail.dead\n");
    assert_eq!(pile.dead(&["import", "mail", &rest, "--yes"], 0), "put 6 dead letters into mail.dead\n");
    let back = drained(&pile.vhost, DEAD);
    let expected = [0, 3, 6, 1, 2, 4, 5].map(|n| (format!("id-{n}"), dead_properties(n), format!("body {n}").into()));
    assert_eq!(back[..7], expected);
    assert_eq!((&back[7].1, &back[7].2), (&rich_properties(), &vec![0, 0xff, 10]));
    assert_eq!((&back[8].1, back[8].2.len()), (&AmqpProperties::default(), 0));
}

/// Each header type that a number or a text could be taken for another.
fn rich_properties() -> AmqpProperties {
    let table = FieldTable::from([
        ("bool".to_owned(), AmqpValue::Boolean(true)),
        ("i8".to_owned(), AmqpValue::ShortShortInt(-1)),
        ("i16".to_owned(), AmqpValue::ShortInt(-300)),
        ("i32".to_owned(), AmqpValue::LongInt(7)),
        ("i64".to_owned(), AmqpValue::LongLongInt(i64::MIN)),
        ("f64".to_owned(), AmqpValue::Double(0.1)),
        ("time".to_owned(), AmqpValue::Timestamp(1_700_000_000)),
        ("text".to_owned(), text("Straße\n")),
        ("bytes".to_owned(), AmqpValue::ByteArray(vec![0, 255])),
        ("void".to_owned(), AmqpValue::Void),
        ("list".to_owned(), AmqpValue::FieldArray(vec![AmqpValue::LongInt(1), text("x")])),
    ]);
    let mut headers = table.clone();
    headers.insert("table".to_owned(), AmqpValue::FieldTable(table));
    with_id("rich")
        .with_headers(headers)
        .with_priority(9)
        .with_type_("order".to_owned())
        .with_timestamp(u64::from(u32::MAX) + 1)
}

/// The file that a purge names: beside the store, for its owner alone.
fn exported(pile: &Pile, told: &str) -> String {
    let path = told.trim_end().rsplit(' ').next().expect("it names the file").to_owned();
    let file = PathBuf::from(&path);
    assert_eq!(file.parent(), pile.daemon.store_path().parent(), "{told}");
    let mode = file.metadata().expect("the file is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    path
}

#[test]
fn files_are_judged_before_anything_happens() {
    let pile = Pile::of(3);
    let file = pile.folder().join("letters.ndjson");
    let path = file.to_string_lossy();
    assert_eq!(pile.dead(&["export", "mail", &path], 0), format!("wrote 3 dead letters to {path}\n"));
    assert!(pile.dead(&["export", "mail", &path], 1).contains("exists already"));
    let good = std::fs::read_to_string(&file).expect("the export can be read");
    assert_eq!(good.lines().count(), 3);
    pile.wait_for(DEAD, 3);
    std::fs::write(&file, format!("{good}{{\"schema\":1}}\n")).expect("the export can be written");
    let why = pile.dead(&["import", "mail", &path, "--yes"], 1);
    assert!(why.contains("letters.ndjson, line 4: it needs one of body and body_base64"), "{why}");
    // Half a line, as a full disk leaves it.
    std::fs::write(&file, &good[..good.len() - 20]).expect("the export can be written");
    assert!(pile.dead(&["import", "mail", &path, "--yes"], 1).contains("line 3: it is no dead letter"));
    pile.wait_for(DEAD, 3);
    // Where the export cannot be written, nothing is purged.
    let nowhere = pile.folder().join("gone/warrend.db");
    let text = std::fs::read_to_string(pile.daemon.config_path()).expect("the configuration can be read");
    let text = text.replace(&*pile.daemon.store_path().to_string_lossy(), &nowhere.to_string_lossy());
    std::fs::write(pile.daemon.config_path(), text).expect("the configuration can be written");
    assert!(pile.dead(&["purge", "mail", "--yes"], 1).contains("cannot write"));
    assert_eq!(ids(&pile.vhost, DEAD), expected_ids(0..3));
    let left: Vec<_> =
        std::fs::read_dir(pile.folder()).expect("it is there").flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains(".part-")), "{left:?}");
}

/// What the handler of the tests with a daemon does: three kinds of failures until the file `mended` is there.
fn failing_handler(folder: &Path) -> String {
    let mended = folder.join("mended");
    format!(
        r#"[ ! -e '{}' ] || exit 0
case "$WARREND_KEY" in
a-*) echo "order ${{WARREND_KEY#a-}} is unknown" >&2; exit 65 ;;
b-*) printf 'trying\nno answer after %s ms\n' "$$" >&2; exit 1 ;;
c-*) kill -KILL $$ ;;
esac"#,
        mended.display()
    )
}

/// A daemon whose every message fails at its first attempt.
fn failing_daemon(vhost: &Vhost) -> (Daemon, Journal) {
    vhost.declare(WORK);
    let mut daemon = Daemon::new(vhost, "");
    let journal = Journal::new(daemon.folder(), &failing_handler(daemon.folder()));
    daemon.set_jobs(&format!(
        "[jobs.mail]\nqueue = \"work\"\nconcurrency = 8\nprefetch = 200\nhandler.command = {}\n\
         [jobs.mail.retry]\nmax_attempts = 1\nmax_crashes = 1\n",
        journal.command()
    ));
    (daemon, journal)
}

fn mend(daemon: &Daemon) {
    std::fs::write(daemon.folder().join("mended"), "").expect("the handler can be mended");
}

/// Messages of the kinds a, b and c in turn.
fn kinds(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{}-{n}", ["a", "b", "c"][n % 3])).collect()
}

#[test]
fn five_thousand_dead_letters() {
    const LETTERS: usize = 5000;
    let vhost = Vhost::new();
    let (mut daemon, journal) = failing_daemon(&vhost);
    let keys = kinds(LETTERS);
    vhost.publish_all(WORK, keys.iter().map(|key| (key.clone().into_bytes(), with_id(key))));
    daemon.start();
    daemon.wait_until("all are dead", Duration::from_secs(240), |_| vhost.ready(DEAD) == Some(5000));
    let dead = |arguments: &[&str]| said(&daemon.run(&[&["dead"], arguments].concat()), 0);

    let list: Value = serde_json::from_str(&dead(&["list", "mail", "--json"])).expect("JSON");
    let groups: BTreeMap<_, _> = list["groups"]
        .as_array()
        .expect("there are groups")
        .iter()
        .map(|group| (group["class"].as_str().unwrap_or_default(), (group["error"].as_str(), group["count"].as_u64())))
        .collect();
    let third = |n| Some(LETTERS.div_ceil(3) as u64 - u64::from(n));
    let crashed = "killed by SIGKILL (signal 9), not by warrend; the machine may have run out of memory";
    let expected = [
        ("crashed", (Some(crashed), third(true))),
        ("failed", (Some("exit status 1: no answer after # ms"), third(false))),
        ("rejected", (Some("exit status 65: order # is unknown"), third(false))),
    ];
    assert_eq!(groups, BTreeMap::from(expected), "{list:#}");

    // The order in which they lie there, after all that reading.
    let file = daemon.folder().join("before.ndjson");
    dead(&["export", "mail", &file.to_string_lossy()]);
    let id = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned();
    let before: Vec<String> = std::fs::read_to_string(&file).expect("it was written").lines().map(id).collect();
    assert_eq!(before.len(), LETTERS);

    mend(&daemon);
    let replay: &[&str] = &["dead", "replay", "mail", "--class", "failed", "--rate", "500/s", "--yes"];
    let begun = std::time::Instant::now();
    let mut child = daemon.start_command(replay);
    let matching = LETTERS.div_ceil(3);
    let half = holds_within(Duration::from_secs(60), || journal.len() >= LETTERS + matching / 2);
    child.kill().expect("a child can be killed");
    let killed = child.wait().expect("a killed child can be waited for");
    assert!(half && !killed.success(), "it was killed half-way: {killed}");
    let paced = Duration::from_secs_f64(matching as f64 / 2.0 / 500.0 * 0.9);
    assert!(begun.elapsed() >= paced, "{:?} for half of them", begun.elapsed());
    // Each copy runs, also those whose letter was not acknowledged any more.
    let given_back = || {
        let ran = journal.len() - LETTERS;
        vhost.ready(WORK) == Some(0) && vhost.ready(DEAD).is_some_and(|ready| ready as usize + ran >= LETTERS)
    };
    assert!(holds_within(BROKER_TIMEOUT, given_back), "what was not moved is given back");
    said(&daemon.run(replay), 0);
    daemon.wait_until("each replayed one ran", Duration::from_secs(60), |_| journal.len() >= LETTERS + matching);
    daemon.wait_until("nothing is left to run", DAEMON_TIMEOUT, |daemon| {
        vhost.ready(WORK) == Some(0)
            && daemon
                .status()
                .is_some_and(|status| status["jobs"]["mail"]["running"] == 0 && status["jobs"]["mail"]["buffered"] == 0)
    });
    for (key, runs) in journal.runs() {
        let attempts: Vec<u32> = runs.iter().map(|run| run.attempt).collect();
        assert_eq!(attempts, if key.starts_with('b') { vec![1, 2] } else { vec![1] }, "{key}");
    }

    let told = said(&daemon.run(&["dead", "purge", "mail", "--yes"]), 0);
    assert!(holds_within(BROKER_TIMEOUT, || vhost.ready(DEAD) == Some(0)));
    let purged = told.trim_end().rsplit(' ').next().expect("it names the file").to_owned();
    said(&daemon.run(&["dead", "import", "mail", &purged, "--yes"]), 0);
    let left: Vec<String> = before.into_iter().filter(|key| !key.starts_with('b')).collect();
    assert_eq!(ids(&vhost, DEAD), left, "what was not meant has kept its order");
    assert!(daemon.terminate().success());
}

#[test]
fn a_crash_between_confirm_and_ack_doubles_no_run() {
    let vhost = Vhost::new();
    let (mut daemon, journal) = failing_daemon(&vhost);
    let keys = kinds(30);
    vhost.publish_all(WORK, keys.iter().map(|key| (Vec::new(), with_id(key))));
    daemon.start();
    daemon.wait_until("all are dead", DAEMON_TIMEOUT, |_| vhost.ready(DEAD) == Some(30));
    mend(&daemon);
    daemon.env("WARREND_FAILPOINT", "replay-confirmed:5");
    let crashed = daemon.run(&["dead", "replay", "mail", "--yes"]);
    assert_eq!(crashed.status.code(), None, "it was aborted: {crashed:?}");
    daemon.env_remove("WARREND_FAILPOINT");
    let told = {
        // The broker gives them back once it has seen the end of the connection.
        assert!(holds_within(BROKER_TIMEOUT, || vhost.ready(DEAD).is_some_and(|ready| (26..=30).contains(&ready))));
        said(&daemon.run(&["dead", "replay", "mail", "--yes"]), 0)
    };
    assert!(told.starts_with("replayed 2") || told.starts_with("replayed 30"), "{told}");
    daemon.wait_until("all are done", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("mail", "done") == 30 && daemon.counter("mail", "duplicates") >= 1
    });
    daemon.wait_until("nothing is left", DAEMON_TIMEOUT, |_| {
        vhost.ready(WORK) == Some(0) && vhost.ready(DEAD) == Some(0)
    });
    assert!(daemon.terminate().success());
    for key in keys {
        assert_eq!(journal.attempts(&key), [1, 2], "{key}");
    }
}

#[test]
fn a_letter_that_others_move_back_gets_a_fresh_budget() {
    let vhost = Vhost::new();
    let (mut daemon, journal) = failing_daemon(&vhost);
    vhost.publish(WORK, "x", with_id("b-1"));
    daemon.start();
    daemon.wait_until("it is dead", DAEMON_TIMEOUT, |_| vhost.ready(DEAD) == Some(1));
    // As a shovel or the management page does it: out of one queue, into the other.
    let letter = vhost.get(DEAD).expect("it lies there");
    mend(&daemon);
    vhost.publish(WORK, letter.body, letter.properties);
    daemon.wait_until("it is done", DAEMON_TIMEOUT, |daemon| daemon.counter("mail", "done") == 1);
    assert_eq!(journal.attempts("b-1"), [1, 2]);
    assert!(daemon.terminate().success());
}
