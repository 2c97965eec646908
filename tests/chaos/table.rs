//! The table at the end, for the terminal and for docs/RELIABILITY.md, and the line that test runners read.

use std::fmt::Write as _;
use std::process::Command;

use crate::plan::{Plan, Results, minutes, text_from};
use crate::row::{Ended, Outcome};
use crate::support::broker::Broker;

/// Writes the Markdown file where one was asked for, and says which.
pub fn keep(results: &Results) -> Option<String> {
    let path = text_from("MARKDOWN")?;
    std::fs::write(&path, markdown(results)).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
    Some(path)
}

/// Prints everything, and keeps the table.
pub fn print(plan: &Plan, results: &Results) {
    if !results.is_empty() {
        println!("\n{}", plain(results));
    }
    for (row, ended) in results.values().filter(|(_, ended)| ended.result() == Outcome::Failed) {
        println!("---- {} (SEED={} COUNTS={}={}) ----", row.name, ended.trial.seed, row.name, ended.trial.count);
        for wrong in ended.wrong() {
            println!("{wrong}");
        }
        println!();
    }
    if let Some(path) = keep(results) {
        println!("the table was written to {path}\n");
    }
    let count = |outcome| results.values().filter(|(_, ended)| ended.result() == outcome).count();
    let (passed, failed, not_tried) = (count(Outcome::Ok), count(Outcome::Failed), count(Outcome::NotTried));
    let took: f64 = results.values().map(|(_, ended)| ended.took.as_secs_f64()).sum();
    println!(
        "test result: {}. {passed} passed; {failed} failed; {not_tried} ignored; 0 measured; {} filtered out; finished in \
         {took:.2}s\n",
        if failed == 0 { "ok" } else { "FAILED" },
        plan.left_out,
    );
}

/// The cells of a row behind its name.
fn cells(ended: &Ended) -> [String; 7] {
    let number = |figure: Option<usize>| figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string());
    // Its zeroes would look as if they had been measured.
    let figures = ended.figures.as_ref().filter(|figures| !figures.not_tried);
    let slowest = figures.and_then(|figures| figures.slowest);
    [
        number(figures.map(|figures| figures.faults)),
        number(figures.map(|figures| figures.messages)),
        number(figures.and_then(|figures| figures.lost)),
        number(figures.map(|figures| figures.again)),
        number(figures.map(|figures| figures.doubled)),
        slowest.map_or_else(|| "-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64())),
        ended.result().to_string(),
    ]
}

const HEADINGS: [&str; 7] = ["faults", "messages", "lost", "ran again", "dead twice", "resumed in", "result"];

fn plain(results: &Results) -> String {
    let mut text = format!("{:20}", "row");
    for heading in HEADINGS {
        let _ = write!(text, "  {heading:>10}");
    }
    for (row, ended) in results.values() {
        let _ = write!(text, "\n{:20}", row.name);
        for cell in cells(ended) {
            let _ = write!(text, "  {cell:>10}");
        }
        let note = ended.figures.as_ref().map_or("", |figures| figures.note.as_str());
        let _ = write!(text, "  {note}");
    }
    text.push('\n');
    text
}

/// The table with the facts that it depends on.
fn markdown(results: &Results) -> String {
    let mut text = facts(results);
    text.push_str(
        "\n| Row | The fault | Holds | Faults | Messages | Lost | Ran again | Dead twice | Resumed in | Result |\n",
    );
    text.push_str("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n");
    for (row, ended) in results.values() {
        let _ = write!(text, "| `{}` | {} | {} |", row.name, row.fault, row.promises);
        for cell in cells(ended) {
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    let notes = results.values().filter_map(|(row, ended)| Some((row.name, ended.figures.as_ref()?.note.as_str())));
    for (name, note) in notes.filter(|(_, note)| !note.is_empty()) {
        let _ = write!(text, "\n`{name}`: {note}.\n");
    }
    text
}

fn facts(results: &Results) -> String {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let overview = Broker::get().management().call("GET", "/api/overview", None).unwrap_or_default();
    let broker = |name: &str| overview[name].as_str().unwrap_or("-").to_owned();
    let took = results.values().map(|(_, ended)| ended.took).sum();
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!(
        "Made on {} in {}: warrend {} ({build} build of commit {}), RabbitMQ {} on Erlang {}, SQLite {}, Linux {}, {} cores.\n",
        jiff::Timestamp::now().strftime("%Y-%m-%d"),
        minutes(took),
        env!("CARGO_PKG_VERSION"),
        or_unknown(output("git", &["describe", "--always", "--dirty", "--abbrev=12"])),
        broker("rabbitmq_version"),
        broker("erlang_version"),
        rusqlite::version(),
        or_unknown(output("uname", &["-r"])),
        std::thread::available_parallelism().map_or(0, |cores| cores.get()),
    )
}
