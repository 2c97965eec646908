//! Faults of the machine: its clock is set, and what it has is used up.

use std::time::{Duration, Instant};

use crate::row::{Figures, Row, Run, Trial};
use crate::support::broker::{BROKER_TIMEOUT, Vhost};
use crate::support::clock::Clock;
use crate::support::daemon::DAEMON_TIMEOUT;
use crate::support::scene::{Kind, Scene, Setup, WORK_TIMEOUT};
use crate::support::wait_until;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "clock-jump",
            fault: "the time of day jumps by a day, forward and back, while the daemon works (a preloaded clock); every third \
                    time the daemon is killed and starts under the other clock",
            promises: "P1 P3",
            short: 6,
            long: 60,
            seconds: 1.5,
            run: Run::Here(clock),
        },
        Row {
            name: "few-descriptors",
            fault: "`ulimit -n 64` with 20 handlers at one time",
            promises: "P1 P5 P6",
            short: 1,
            long: 3,
            seconds: 25.0,
            run: Run::Here(few_descriptors),
        },
        Row {
            name: "no-descriptors",
            fault: "the limit on open files falls below what is open while the daemon works and its connections are closed; \
                    it is raised again",
            promises: "P1 P5 P6 P7",
            short: 1,
            long: 10,
            seconds: 12.0,
            run: Run::Here(no_descriptors),
        },
    ]
}

const DAY: i64 = 24 * 3600;

fn clock(trial: &Trial) -> Figures {
    let steady = trial.count / 3;
    jump_at_work(steady).and(jump_and_crash(trial.count - steady))
}

/// The daemon goes on working. Keys are remembered for an hour, and the time of day says that it is over.
fn jump_at_work(count: usize) -> Figures {
    let job = "queue = \"work\"\nidempotency = { retention = \"1h\" }";
    let mut scene = Scene::new(Vhost::new(), &Setup { job, ..Setup::default() });
    let mut clock = Clock::of(&mut scene.daemon);
    scene.publish(100);
    scene.spawn();
    scene.wait_until_settled();
    for _ in 0..count {
        scene.publish(60);
        scene.wait_for_runs(fastrand::u64(1..40));
        clock.set(if clock.ahead() == 0 { *fastrand::choice(&[-DAY, DAY]).expect("two") } else { 0 });
        scene.wait_until_settled();
        let known = scene.daemon.counter("work", "duplicates");
        let copies = scene.publish_again(50) as u64;
        scene.daemon.wait_until("copies are known", DAEMON_TIMEOUT, |daemon| {
            daemon.counter("work", "duplicates") >= known + copies
        });
    }
    scene.stop();
    Figures::of(count, scene.verdict())
}

fn jump_and_crash(count: usize) -> Figures {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    let mut clock = Clock::of(&mut scene.daemon);
    scene.spawn();
    for turn in 0..count {
        scene.publish(60);
        scene.wait_for_runs(fastrand::u64(1..40));
        clock.set(if clock.ahead() == 0 { *fastrand::choice(&[-DAY, DAY]).expect("two") } else { 0 });
        if turn % 2 == 1 {
            scene.kill9();
            scene.spawn();
        }
    }
    scene.stop_at_work();
    scene.finish();
    Figures::of(count, scene.verdict())
}

fn few_descriptors(trial: &Trial) -> Figures {
    let setup = Setup { concurrency: 20, handler: Kind::Command("sleep 0.05"), ..Setup::default() };
    let mut scene = Scene::new(Vhost::new(), &setup);
    scene.daemon.set_limits("-n 64");
    for start in 1..=trial.count {
        scene.publish(40);
        scene.spawn();
        scene.wait_until_settled();
        scene.stop();
        let log = scene.daemon.log();
        let told = log.lines().filter(|line| line.contains("open files")).count();
        assert!(told >= start, "it says each time what is used up\n{}", scene.daemon.log_tail());
    }
    Figures::of(trial.count, scene.verdict())
}

fn no_descriptors(trial: &Trial) -> Figures {
    /// How long nothing can be opened.
    const SHORTAGE: Duration = Duration::from_secs(4);
    let mut scene = Scene::new(Vhost::new(), &Setup { handler: Kind::Command("sleep 0.02"), ..Setup::default() });
    scene.daemon.start();
    let mut most = 0.0_f64;
    for _ in 0..trial.count {
        wait_until("the broker lists both connections", BROKER_TIMEOUT, || scene.vhost.connections().len() == 2);
        scene.publish(300);
        scene.wait_for_runs(fastrand::u64(10..60));
        scene.note_outage();
        let before = scene.daemon.limit_files(3);
        scene.vhost.close_connections();
        let (since, used) = (Instant::now(), scene.daemon.cpu_time());
        std::thread::sleep(SHORTAGE);
        let used = (scene.daemon.cpu_time() - used).as_secs_f64() / since.elapsed().as_secs_f64();
        most = most.max(used);
        assert!(scene.daemon.is_alive(), "{}", scene.daemon.log_tail());
        scene.daemon.limit_files(before);
        scene.wait_for_work(Instant::now());
    }
    scene.daemon.wait_until("status is healthy", WORK_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["healthy"] == true)
    });
    scene.wait_until_settled();
    scene.stop();
    let mut figures = Figures::of(trial.count, scene.verdict());
    figures.note = format!("at most {:.0} % of a core during the shortage", 100.0 * most);
    if most > 0.3 {
        figures.wrong.push(format!("{most:.2} cores were used while nothing could be done"));
    }
    figures
}
