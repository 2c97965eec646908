//! What the daemon's user may do, its password and its virtual host are taken away and given back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::row::{Figures, Row, Run, Trial};
use crate::support::broker::{BROKER_TIMEOUT, Broker, Vhost};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::random_uuid;
use crate::support::scene::{Kind, Scene, Setup};
use crate::support::{holds_within, wait_until};

/// Within this time of being let in again, work goes on. RabbitMQ takes three seconds to refuse a password, and one such try
/// may be under way; the waits between them are half a second here, and half a minute by default.
const RESUME: Duration = Duration::from_secs(8);
/// How long each is taken away at least, after status has told of it.
const ABSENCE: Duration = Duration::from_secs(3);
/// An idle channel of RabbitMQ hibernates within ten seconds.
const HIBERNATION: Duration = Duration::from_secs(12);
/// Lines of the log that one absence may cost, however long it is.
const LINES: usize = 12;

pub fn rows() -> Vec<Row> {
    vec![Row {
        name: "rights",
        fault: "taken away and given back, in turn: the user's permissions while retries are published, the same while \
                connections are closed, the password, the virtual host with all that is in it",
        promises: "P1 P7 P8",
        short: 4,
        long: 40,
        seconds: 13.0,
        run: Run::Here(rights),
    }]
}

fn rights(trial: &Trial) -> Figures {
    let vhost = Vhost::new();
    let user = User::new(&vhost);
    let setup = Setup { handler: Kind::Command("sleep 0.01"), tap: false, ..Setup::default() };
    let mut scene = Scene::new(vhost, &setup);
    scene.daemon.set_broker(&user.broker(&scene.vhost));
    scene.daemon.start();
    let mut busiest = 0.0_f64;
    let mut wrong = Vec::new();
    for turn in 0..trial.count {
        let loss = LOSSES[turn % LOSSES.len()];
        scene.note_outage();
        let lines = scene.daemon.log().lines().filter(|line| is_about_the_broker(line)).count();
        match loss {
            // What lies in it is the deleter's to lose.
            Loss::Vhost => scene.take_dead_letters(),
            Loss::Rights => {}
            Loss::RightsAndConnections | Loss::Password => {
                scene.publish(200);
                scene.wait_for_runs(20);
            }
        }
        user.lose(loss, &scene.vhost);
        if loss == Loss::Rights {
            publish_until_refused(&mut scene);
        }
        scene.daemon.wait_until("status says what is wrong", DAEMON_TIMEOUT, |daemon| tells(daemon, loss));
        let (since, used) = (Instant::now(), scene.daemon.cpu_time());
        scene.daemon.wait_until("it goes on saying so", 2 * ABSENCE, |daemon| {
            // A busy machine may leave one question without an answer; a wrong answer is another matter.
            let status = daemon.status();
            assert!(
                status.as_ref().is_none_or(|status| says(status, loss)),
                "{loss:?}: {status:#?}\n{}",
                daemon.log_tail()
            );
            since.elapsed() >= ABSENCE
        });
        busiest = busiest.max((scene.daemon.cpu_time() - used).as_secs_f64() / since.elapsed().as_secs_f64());
        let said = scene.daemon.log().lines().filter(|line| is_about_the_broker(line)).count() - lines;
        if said > LINES {
            wrong.push(format!("{said} lines in the log about {loss:?}\n{}", scene.daemon.log_tail()));
        }
        user.regain(loss, &scene.vhost);
        let back = Instant::now();
        if loss == Loss::Vhost {
            scene.daemon.wait_until("the queues are there again", DAEMON_TIMEOUT, is_healthy);
            scene.publish(40);
        }
        scene.wait_for_work(back);
        scene.wait_until_settled();
        scene.daemon.wait_until("status is healthy", DAEMON_TIMEOUT, is_healthy);
    }
    scene.stop();
    let mut figures = Figures::of(trial.count, scene.verdict());
    figures.note = format!("at most {:.0} % of a core while it was shut out", 100.0 * busiest);
    if busiest > 0.3 {
        wrong.push(format!("{busiest:.2} cores were used while it was shut out"));
    }
    if let Some(slowest) = figures.slowest.filter(|slowest| *slowest > RESUME) {
        wrong.push(format!("work resumed after {slowest:?}, and {RESUME:?} are allowed"));
    }
    figures.wrong.extend(wrong);
    figures
}

/// RabbitMQ asks anew what a channel may do only once that has hibernated, so the first copies may still be taken.
fn publish_until_refused(scene: &mut Scene) {
    for _ in 0..5 {
        scene.publish(40);
        if holds_within(ABSENCE, || tells(&scene.daemon, Loss::Rights)) {
            return;
        }
        std::thread::sleep(HIBERNATION);
    }
}

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Connections stand: copies are refused.
    Rights,
    RightsAndConnections,
    Password,
    Vhost,
}

const LOSSES: [Loss; 4] = [Loss::Rights, Loss::RightsAndConnections, Loss::Password, Loss::Vhost];

/// Whether status names it.
fn tells(daemon: &Daemon, loss: Loss) -> bool {
    daemon.status().is_some_and(|status| says(&status, loss))
}

fn says(status: &Value, loss: Loss) -> bool {
    let problems = status["problems"].to_string();
    let words = match loss {
        Loss::Rights | Loss::RightsAndConnections => "ACCESS_REFUSED",
        Loss::Password => "check user name and password",
        Loss::Vhost => "refused the virtual host",
    };
    status["healthy"] == false && problems.contains(words)
}

fn is_healthy(daemon: &mut Daemon) -> bool {
    daemon.status().is_some_and(|status| status["healthy"] == true)
}

/// Not about one message.
fn is_about_the_broker(line: &str) -> bool {
    !line.contains(" failed")
}

/// A user of the broker, gone with its row.
struct User(String);

const PASSWORD: &str = "only here";

impl User {
    fn new(vhost: &Vhost) -> Self {
        let user = Self(format!("warrend-test-{}", random_uuid().simple()));
        user.set_password(PASSWORD);
        user.permit(vhost, ".*");
        user
    }

    /// The content of `[broker]`.
    fn broker(&self, vhost: &Vhost) -> String {
        let mut url = url::Url::parse(&vhost.url()).expect("it is one");
        url.set_username(&self.0).and(url.set_password(Some(PASSWORD))).expect("it has a host");
        format!("urls = [\"{url}\"]\nreconnect = {{ initial = \"50ms\", max = \"500ms\" }}")
    }

    fn lose(&self, loss: Loss, vhost: &Vhost) {
        match loss {
            Loss::Rights => self.permit(vhost, "^$"),
            Loss::RightsAndConnections => {
                self.permit(vhost, "^$");
                self.hang_up(vhost);
            }
            Loss::Password => {
                self.set_password("another");
                self.hang_up(vhost);
            }
            Loss::Vhost => call("DELETE", &format!("/api/vhosts/{}", vhost.name()), None),
        }
    }

    fn regain(&self, loss: Loss, vhost: &Vhost) {
        match loss {
            Loss::Rights | Loss::RightsAndConnections => self.permit(vhost, ".*"),
            Loss::Password => self.set_password(PASSWORD),
            Loss::Vhost => {
                vhost.create();
                self.permit(vhost, ".*");
            }
        }
    }

    fn set_password(&self, password: &str) {
        call("PUT", &format!("/api/users/{}", self.0), Some(&json!({"password": password, "tags": ""})));
    }

    fn permit(&self, vhost: &Vhost, what: &str) {
        let rights = json!({"configure": what, "write": what, "read": what});
        call("PUT", &format!("/api/permissions/{}/{}", vhost.name(), self.0), Some(&rights));
    }

    /// The list lags behind by seconds.
    fn hang_up(&self, vhost: &Vhost) {
        let mut closed = 0;
        wait_until("the broker has listed and closed both connections", BROKER_TIMEOUT, || {
            closed += vhost.close_connections();
            closed >= 2
        });
    }
}

impl Drop for User {
    fn drop(&mut self) {
        // Nothing else depends on it.
        let _ = Broker::get().management().call("DELETE", &format!("/api/users/{}", self.0), None);
    }
}

fn call(method: &str, path: &str, body: Option<&Value>) {
    Broker::get().management().call(method, path, body).expect("the broker does as it is told");
}
