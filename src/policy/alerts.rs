//! Alerts: which of them fire.
//!
//! The board holds every alert, and for a quantity of jobs each of its jobs apart. A look at the status moves each one on
//! (`watch`) by what was measured (`measure`), and gives back what there is to tell.
//!
//! What is unknown neither fires nor clears anything: a job that does not answer is told of by `disconnected` and `degraded`.

pub mod measure;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::config::{Alert, Quantity};
use crate::report::{self, Status};
use crate::task::UnixMillis;
use measure::{Meter, Reading};
use watch::{Change, State, Watch};

/// All alerts.
#[derive(Debug, Default)]
pub struct Board {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    alert: Arc<Alert>,
    /// By job; under `None` for a quantity of the daemon.
    cells: BTreeMap<Option<String>, Cell>,
}

/// One alert for one job, or for the daemon.
#[derive(Debug)]
struct Cell {
    watch: Watch,
    meter: Meter,
    reading: Reading,
    /// Since when it is in its state.
    since: UnixMillis,
    notified: Option<report::Notified>,
}

/// What a look gave.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// All of it.
    pub status: &'a Status,
    /// Whether it is known which jobs run.
    pub jobs: bool,
    /// Whether the publisher answered.
    pub publisher: bool,
}

impl Sight<'_> {
    /// A job that is not there may be between its end and its start while a reload is not done.
    fn knows_who_is_gone(&self) -> bool {
        self.jobs && self.status.reload.as_ref().is_none_or(|reload| reload.state == "done")
    }
}

/// Something to tell.
#[derive(Debug, Clone)]
pub struct Notice {
    /// The alert.
    pub alert: Arc<Alert>,
    /// The job that it is about.
    pub job: Option<String>,
    /// What became of it.
    pub change: Change,
    /// What was measured.
    pub reading: Reading,
    /// Since when it fires; for one that has cleared, since when it had fired.
    pub since: UnixMillis,
}

impl Board {
    /// These are watched from now on. One that is as before keeps its state, any other begins anew.
    pub fn set(&mut self, alerts: &[Arc<Alert>]) {
        let mut before = std::mem::take(&mut self.rows);
        for alert in alerts {
            let same = before.iter().position(|row| row.alert == *alert);
            let fresh = || Row { alert: Arc::clone(alert), cells: BTreeMap::new() };
            self.rows.push(same.map_or_else(fresh, |same| before.swap_remove(same)));
        }
    }

    /// Whether nothing is watched.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is watched, in the order of the configuration.
    pub fn alerts(&self) -> impl Iterator<Item = &Arc<Alert>> {
        self.rows.iter().map(|row| &row.alert)
    }

    /// Takes what is known now and gives what there is to tell.
    pub fn look(&mut self, now: Instant, at: UnixMillis, sight: &Sight<'_>) -> Vec<Notice> {
        let Sight { status, .. } = *sight;
        let mut notices = Vec::new();
        for row in &mut self.rows {
            if sight.knows_who_is_gone() {
                notices.extend(row.leave(&status.jobs));
            }
            let jobs = status.jobs.iter().filter(|(name, _)| row.alert.jobs.has(name));
            let subjects: Vec<(Option<String>, Option<&report::Job>)> = if row.alert.when.quantity.is_of_jobs() {
                jobs.map(|(name, job)| (Some(name.clone()), Some(job))).collect()
            } else {
                vec![(None, None)]
            };
            for (name, job) in subjects {
                let fresh = || Cell::new(&row.alert, at);
                let cell = row.cells.entry(name.clone()).or_insert_with(fresh);
                let seen = measure::Seen { sight, job };
                if let Some((change, since)) = cell.look(now, at, &row.alert, &seen) {
                    let reading = cell.reading.clone();
                    notices.push(Notice { alert: Arc::clone(&row.alert), job: name, change, reading, since });
                }
            }
        }
        notices
    }

    /// Remembers how a notification went.
    pub fn notified(&mut self, alert: &str, job: Option<&String>, notified: report::Notified) {
        let row = self.rows.iter_mut().find(|row| *row.alert.name == *alert);
        let cell = row.and_then(|row| row.cells.get_mut(&job.cloned()));
        if let Some(cell) = cell {
            cell.notified = Some(notified);
        }
    }

    /// All of them as they are, in the order of the configuration.
    pub fn report(&self) -> Vec<report::Alert> {
        let of_row = |row: &Row| {
            let alert = &row.alert;
            let line = |(job, cell): (&Option<String>, &Cell)| report::Alert {
                name: alert.name.to_string(),
                when: alert.when.text.clone(),
                severity: alert.severity.as_str().to_owned(),
                job: job.clone(),
                state: cell.watch.state().as_str().to_owned(),
                since_ms: cell.since.0,
                value: cell.reading.value(),
                shown: cell.reading.shown(&alert.when),
                notified: cell.notified.clone(),
            };
            row.cells.iter().map(line).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(of_row).collect()
    }
}

impl Row {
    /// Lets go of jobs that are gone: they have nobody else who could clear what fires.
    fn leave(&mut self, jobs: &BTreeMap<String, report::Job>) -> Vec<Notice> {
        let gone = self.cells.extract_if(.., |job, _| job.as_ref().is_some_and(|job| !jobs.contains_key(job)));
        let firing = gone.filter(|(_, cell)| cell.watch.state() == State::Firing);
        let cleared = firing.map(|(job, cell)| Notice {
            alert: Arc::clone(&self.alert),
            job,
            change: Change::Cleared,
            reading: Reading::Unknown,
            since: cell.since,
        });
        cleared.collect()
    }
}

impl Cell {
    fn new(alert: &Alert, at: UnixMillis) -> Self {
        let meter = Meter::new(alert.when.quantity, alert.window);
        Self { watch: Watch::default(), meter, reading: Reading::Unknown, since: at, notified: None }
    }

    /// Gives what became of it, and since when it fires or had fired.
    fn look(
        &mut self,
        now: Instant,
        at: UnixMillis,
        alert: &Alert,
        seen: &measure::Seen<'_>,
    ) -> Option<(Change, UnixMillis)> {
        self.reading = self.meter.read(now, alert.when.quantity, seen);
        let before = self.watch.state();
        let holds = self.reading.sets_off(&alert.when);
        let change = self.watch.saw(now, holds, alert);
        let since = self.since;
        if self.watch.state() != before {
            self.since = at;
        }
        let began = match change? {
            Change::Fired => at,
            Change::Cleared | Change::Repeated => since,
        };
        change.map(|change| (change, began))
    }
}

/// What a notice says, in one sentence.
pub fn sentence(notice: &Notice) -> String {
    let alert = &notice.alert;
    let name = &alert.name;
    let whose = notice.job.as_ref().map_or_else(String::new, |job| format!(" for job {job}"));
    let verb = match notice.change {
        Change::Fired => "fires",
        Change::Repeated => "still fires",
        Change::Cleared => "has cleared",
    };
    // An alert that has no name of its own is called after its expression.
    let expression = if **name == *alert.when.text { String::new() } else { format!(" ({})", alert.when.text) };
    let is = match (&notice.reading, alert.when.quantity) {
        (Reading::Is { why: Some(why), holds: true }, Quantity::Degraded) => format!(": {why}"),
        (Reading::Is { .. }, _) => String::new(),
        (Reading::Unknown, _) => ": it runs here no more".to_owned(),
        (reading, quantity) => match reading.shown(&alert.when) {
            Some(shown) => format!(": {} is {shown}", quantity.as_str()),
            None => String::new(),
        },
    };
    format!("alert {name:?}{expression} {verb}{whose}{is}")
}

impl State {
    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Firing => "firing",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Severity, Watched, parse_condition};
    use crate::report::{Broker, DeadLetter, Job, Queue, Store};

    fn alert(when: &str) -> Arc<Alert> {
        Arc::new(Alert {
            name: Arc::from(when),
            when: parse_condition(when).unwrap(),
            jobs: Watched::All,
            window: Duration::from_secs(60),
            hold: Duration::ZERO,
            clear_for: Duration::ZERO,
            repeat: None,
            severity: Severity::Warning,
            command: None,
            webhook: None,
        })
    }

    /// A daemon that is well, with one job.
    fn status() -> Status {
        let job = Job {
            state: "running".to_owned(),
            oldest_wait_ms: Some(0.0),
            queues: [("q".to_owned(), Queue { ready: Some(0), consumers: Some(1), ..Queue::default() })].into(),
            dead_letter: DeadLetter { queue: "mail.dead".to_owned(), ready: Some(0) },
            ..Job::default()
        };
        Status {
            schema: report::SCHEMA,
            version: String::new(),
            pid: 1,
            uptime_s: 1,
            state: "running".to_owned(),
            healthy: true,
            problems: Vec::new(),
            findings: Vec::new(),
            broker: Broker { connected: true, ..Broker::default() },
            store: Store { bytes: Some(1000), wal_bytes: Some(24), free_bytes: Some(5 << 30), ..Store::default() },
            jobs: [("mail".to_owned(), job)].into(),
            system: report::System::default(),
            reload: None,
            alerts: None,
        }
    }

    fn sight(status: &Status) -> Sight<'_> {
        Sight { status, jobs: true, publisher: true }
    }

    /// Looks at each status, five seconds apart; gives the first letter of each change (`.` for none), and the last sentence.
    fn run(when: &str, statuses: &[Status]) -> (String, String) {
        let alert = alert(when);
        let mut board = Board::default();
        board.set(&[alert]);
        let (start, mut told, mut last) = (Instant::now(), String::new(), String::new());
        for (index, status) in statuses.iter().enumerate() {
            let now = start + Duration::from_secs(5 * index as u64);
            let notices = board.look(now, UnixMillis(5000 * index as i64), &sight(status));
            told.push(match notices.first().map(|notice| notice.change) {
                None => '.',
                Some(Change::Fired) => 'F',
                Some(Change::Cleared) => 'C',
                Some(Change::Repeated) => 'R',
            });
            if let Some(notice) = notices.first() {
                last = sentence(notice);
            }
        }
        (told, last)
    }

    /// Well, then changed, then well again.
    fn check(when: &str, change: impl Fn(&mut Status), expect: &str, said: &str) {
        let mut changed = status();
        change(&mut changed);
        let (told, last) = run(when, &[status(), changed.clone(), changed, status()]);
        assert_eq!(told, expect, "{when}");
        assert!(last.contains(said), "{when}: {last}");
    }

    fn mail(status: &mut Status) -> &mut Job {
        status.jobs.get_mut("mail").unwrap()
    }

    fn queue(status: &mut Status) -> &mut Queue {
        mail(status).queues.get_mut("q").unwrap()
    }

    #[test]
    fn each_quantity_fires_and_clears() {
        let cleared = "has cleared for job mail: ready is 0";
        check("ready > 10", |status| queue(status).ready = Some(11), ".F.C", cleared);
        check("ready > 10", |status| queue(status).ready = Some(10), "....", "");
        check(
            "ready < 1",
            |status| queue(status).ready = Some(1),
            "FC.F",
            "alert \"ready < 1\" fires for job mail: ready is 0",
        );
        check("dead_ready > 0", |status| mail(status).dead_letter.ready = Some(3), ".F.C", "dead_ready is 0");
        check("oldest_wait > 5m", |status| mail(status).oldest_wait_ms = Some(301e3), ".F.C", "oldest_wait is 0s");
        check("paused", |status| mail(status).state = "paused".to_owned(), ".F.C", "has cleared for job mail");
        check("paused", |status| mail(status).state = "probing".to_owned(), ".F.C", "");
        check("stalled", |status| mail(status).stalled = true, ".F.C", "");
        check("no_consumers", |status| queue(status).consumers = Some(0), ".F.C", "");
        check("disconnected", |status| status.broker.connected = false, ".F.C", "alert \"disconnected\" has cleared");
        check("blocked", |status| status.broker.blocked = true, ".F.C", "");
        check("degraded", |status| status.problems.push("no luck".to_owned()), ".F.C", "");
        check("store_bytes > 1KiB", |status| status.store.wal_bytes = Some(25), ".F.C", "store_bytes is 1.0KiB");
        check("disk_free < 5GiB", |status| status.store.free_bytes = Some(1 << 30), ".F.C", "disk_free is 5.0GiB");
        let mut bad = status();
        bad.problems = vec!["the disk is full".to_owned(), "more".to_owned()];
        assert_eq!(run("degraded", &[bad]).1, "alert \"degraded\" fires: the disk is full");
    }

    #[test]
    fn what_is_unknown_neither_fires_nor_clears() {
        let unknown = |when: &str, change: &dyn Fn(&mut Status)| {
            let mut changed = status();
            change(&mut changed);
            assert_eq!(run(when, &[changed.clone(), changed]).0, "..", "{when}");
        };
        unknown("ready < 5", &|status| queue(status).ready = None);
        unknown("dead_ready < 5", &|status| mail(status).dead_letter.ready = None);
        unknown("oldest_wait < 5m", &|status| mail(status).oldest_wait_ms = None);
        unknown("no_consumers", &|status| queue(status).consumers = None);
        unknown("disk_free < 10GiB", &|status| status.store.free_bytes = None);
        unknown("store_bytes < 1GiB", &|status| status.store.bytes = None);
        // Of one that does not answer all counts are zero.
        for when in ["ready < 5", "rate < 5/s", "oldest_wait < 5m", "paused"] {
            unknown(when, &|status| *mail(status) = Job { state: "silent".to_owned(), ..Job::default() });
        }
        let mut many = status();
        queue(&mut many).ready = Some(11);
        let mut silent = status();
        mail(&mut silent).state = "silent".to_owned();
        assert_eq!(run("ready > 10", &[many, silent.clone(), silent, status()]).0, "F..C");
    }

    #[test]
    fn a_publisher_that_does_not_answer_is_not_unblocked() {
        let mut board = Board::default();
        board.set(&[alert("blocked")]);
        let (now, mut blocked) = (Instant::now(), status());
        blocked.broker.blocked = true;
        assert_eq!(board.look(now, UnixMillis(1), &sight(&blocked)).len(), 1);
        let silent = status();
        assert!(board.look(now, UnixMillis(2), &Sight { publisher: false, ..sight(&silent) }).is_empty());
        assert_eq!(board.report()[0].state, "firing");
        assert_eq!(board.look(now, UnixMillis(3), &sight(&silent)).len(), 1);
    }

    #[test]
    fn a_rate_after_a_gap_is_that_of_the_gap() {
        let mut board = Board::default();
        board.set(&[alert("dead_rate > 1/m")]);
        let (start, mut at) = (Instant::now(), status());
        assert!(board.look(start, UnixMillis(1), &sight(&at)).is_empty());
        // The machine slept for ten minutes.
        mail(&mut at).dead = 9;
        assert!(board.look(start + Duration::from_secs(600), UnixMillis(2), &sight(&at)).is_empty());
        assert_eq!(board.report()[0].shown.as_deref(), Some("0.9/m"));
    }

    /// Statuses with these counts.
    fn counts(each: &[(u64, u64, u64)]) -> Vec<Status> {
        let of = |(done, retried, dead): &(u64, u64, u64)| {
            let mut status = status();
            (mail(&mut status).done, mail(&mut status).retried, mail(&mut status).dead) = (*done, *retried, *dead);
            status
        };
        each.iter().map(of).collect()
    }

    #[test]
    fn rates_and_ratios_are_counted_over_their_window() {
        let rest = |after: (u64, u64, u64)| std::iter::repeat_n(after, 14);
        // What happened before the first look does not count.
        let dead: Vec<_> = [(0, 0, 7), (0, 0, 8), (0, 0, 9)].into_iter().chain(rest((0, 0, 9))).collect();
        let (told, last) = run("dead_rate > 1/m", &counts(&dead));
        assert_eq!(told, "..F..........C...");
        assert!(last.ends_with("dead_rate is 1/m"), "{last}");
        let retried: Vec<_> = [(0, 0, 0), (0, 61, 0)].into_iter().chain(rest((0, 61, 0))).collect();
        assert_eq!(run("retried_rate > 1/s", &counts(&retried)).0, ".F...........C..");
        // Below: not before a whole window was seen.
        let done: Vec<_> = rest((5, 0, 0)).chain([(500, 0, 0)]).collect();
        assert_eq!(run("rate < 1/s", &counts(&done)).0, "............F.C");
        // Nine attempts say nothing.
        let failed: Vec<_> = [(0, 0, 0), (0, 9, 0), (7, 9, 1)].into_iter().chain(rest((100, 9, 1))).collect();
        let (told, last) = run("error_ratio > 0.5", &counts(&failed));
        assert_eq!(told, "..FC.............");
        assert!(last.ends_with("error_ratio is 0.09"), "{last}");
        let idle: Vec<_> = [(0, 0, 0)].into_iter().chain(rest((0, 10, 0))).collect();
        assert_eq!(run("error_ratio > 0.5", &counts(&idle)).0, ".F...........C.");
        // A job that was started anew counts from nothing.
        assert_eq!(run("dead_rate > 1/m", &counts(&[(0, 0, 900), (0, 0, 0), (0, 0, 1)])).0, "...");
    }

    #[test]
    fn each_job_has_its_own_and_one_that_is_gone_has_none() {
        let mut only = (*alert("ready > 10")).clone();
        only.jobs = Watched::Only(vec![Arc::from("web")]);
        let alerts = [alert("ready > 10"), Arc::new(only), alert("disconnected")];
        let mut board = Board::default();
        board.set(&alerts);
        let mut two = status();
        queue(&mut two).ready = Some(50);
        let (mail, now) = (two.jobs["mail"].clone(), Instant::now());
        two.jobs.insert("web".to_owned(), mail);
        let told: Vec<_> = board.look(now, UnixMillis(7), &sight(&two));
        let told: Vec<_> =
            told.iter().map(|notice| (notice.alert.jobs == Watched::All, notice.job.as_deref())).collect();
        assert_eq!(told, [(true, Some("mail")), (true, Some("web")), (false, Some("web"))]);
        let report = board.report();
        assert_eq!(report.len(), 4);
        assert_eq!((&*report[0].state, report[0].since_ms, report[0].shown.as_deref()), ("firing", 7, Some("50")));
        assert_eq!((&*report[3].state, report[3].job.as_deref()), ("ok", None));
        // As long as it may come back, or nobody knows who runs, nothing is let go.
        two.jobs.remove("web");
        let unknown = Sight { jobs: false, ..sight(&two) };
        assert!(board.look(now, UnixMillis(8), &unknown).is_empty());
        two.reload = Some(report::Reloading {
            number: 1,
            at_ms: 8,
            by: "SIGHUP".to_owned(),
            state: "under way".to_owned(),
            reason: None,
            waits_for: vec!["web".to_owned()],
        });
        assert!(board.look(now, UnixMillis(8), &sight(&two)).is_empty());
        assert_eq!(board.report().len(), 4);
        two.reload = None;
        let told: Vec<_> = board.look(now, UnixMillis(9), &sight(&two)).iter().map(sentence).collect();
        let cleared = "alert \"ready > 10\" has cleared for job web: it runs here no more";
        assert_eq!(told, [cleared, cleared]);
        assert_eq!(board.report().len(), 2);
        // A reload: what is as before goes on, and what is not begins anew.
        let shorter = Arc::new(Alert { window: Duration::from_secs(30), ..(*alerts[0]).clone() });
        board.set(&[alert("disconnected"), Arc::clone(&alerts[0])]);
        let states = |board: &Board| board.report().iter().map(|alert| alert.state.clone()).collect::<Vec<_>>();
        assert_eq!(states(&board), ["ok", "firing"]);
        board.set(&[shorter]);
        assert!(!board.is_empty() && states(&board).is_empty());
    }
}
