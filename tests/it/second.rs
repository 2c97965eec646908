//! A second daemon on the store of a first.

use crate::scene::{Scene, Setup};
use crate::support::broker::Vhost;

#[test]
fn a_second_instance_is_refused_and_the_first_goes_on() {
    let mut scene = Scene::new(Vhost::new(), &Setup::default());
    scene.daemon.start();
    let pid = scene.daemon.pid().expect("it was started").to_string();
    scene.publish(20);
    let second = scene.daemon.run(&["run"]);
    assert_eq!(second.status.code(), Some(75));
    let said = String::from_utf8_lossy(&second.stderr);
    let last = said.lines().last().unwrap_or_default();
    assert!(last.contains("another warrend holds the store") && last.contains(&pid), "{said}");
    scene.wait_until_settled();
    scene.publish(20);
    scene.wait_until_settled();
    scene.stop();
    scene.judge();
}
