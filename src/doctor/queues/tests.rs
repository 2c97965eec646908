//! What was seen of the broker is made up here; what is made of it is not.

use serde_json::json;

use super::*;
use crate::broker::Counts;
use crate::doctor::finding::Mend;
use crate::doctor::seen::ConsumerSeen;
use crate::doctor::tests::config;

const JOB: &str = "[jobs.work]\nqueue = \"work\"\nhandler.command = [\"true\"]\n";

/// A queue that is there, and that the management API was not asked about.
fn counted(ready: u32, consumers: u32) -> QueueSeen {
    QueueSeen { counts: Ok(Some(Counts { ready, consumers })), details: None }
}

/// One that it was asked about.
fn known(details: Details) -> QueueSeen {
    QueueSeen { details: Some(Ok(Details { durable: true, ..details })), ..counted(0, 0) }
}

fn classic() -> Details {
    Details { kind: "classic".to_owned(), ..Details::default() }
}

/// What is said of these queues, on the machine `here`, beside a daemon that consumes `own`.
fn judged(jobs: &str, queues: Vec<(&str, QueueSeen)>, own: Option<&[&str]>) -> Vec<Finding> {
    let config = config(jobs);
    let queues = queues.into_iter().map(|(name, seen)| (name.to_owned(), seen)).collect();
    let inside = Inside { queues, ..Inside::default() };
    let own = own.map(|own| own.iter().map(|name| (*name).to_owned()).collect());
    judge(&Scene { config: &config, inside: &inside, version: Some((3, 13)), machine: "here", own })
}

/// Level and text of the findings of a kind.
fn of(findings: &[Finding], code: &str) -> Vec<(Level, String)> {
    findings.iter().filter(|found| found.code == code).map(|found| (found.level, found.text.clone())).collect()
}

#[test]
fn consumers_beyond_our_own_are_told_by_number() {
    let check = |consumers: u32, own: Option<&[&str]>, expect: Option<&str>| {
        let expect = expect.map(|text| (Level::Note, format!("queue \"work\" has {text}")));
        let found = of(&judged(JOB, vec![("work", counted(0, consumers))], own), "other-consumers");
        assert_eq!(found, expect.into_iter().collect::<Vec<_>>(), "{consumers} {own:?}");
    };
    check(0, None, None);
    check(1, None, Some("1 consumer though no daemon answers here"));
    check(1, Some(&["work"]), None);
    check(3, Some(&["work"]), Some("2 consumers beside the daemon here"));
    // Ours is paused, so this one is somebody else's.
    check(1, Some(&[]), Some("1 consumer though the daemon here does not consume it now"));
    check(0, Some(&[]), None);
}

/// A job whose runs take that long.
fn slow(timeout: &str, more: &str) -> String {
    format!("[jobs.work]\nqueue = \"work\"\nhandler = {{ command = [\"true\"], timeout = {timeout:?} }}\n{more}")
}

#[test]
fn a_run_or_a_round_may_be_longer_than_the_broker_waits() {
    let check = |job: &str, limit: Option<u64>, expect: Option<(Level, &str)>| {
        let mut details = classic();
        details.arguments.extend(limit.map(|limit| ("x-consumer-timeout".to_owned(), json!(limit))));
        let found = of(&judged(job, vec![("work", known(details))], None), "consumer-timeout");
        let expect = expect.map(|(level, text)| (level, text.to_owned()));
        assert_eq!(found, expect.into_iter().collect::<Vec<_>>(), "{job} {limit:?}");
    };
    let own = "(RabbitMQ's own, unless rabbitmq.conf says otherwise)";
    check(
        &slow("40m", ""),
        None,
        Some((Level::Error, &format!("job work: a run may take 2405s, consumer_timeout is 30m {own}"))),
    );
    check(
        &slow("10m", "prefetch = 12\n"),
        None,
        Some((
            Level::Warning,
            &format!(
                "job work: the last of 3 rounds of prefetched messages may wait 31m, consumer_timeout is 30m {own}"
            ),
        )),
    );
    check(
        &slow("2m", "prefetch = 4\n"),
        Some(60_000),
        Some((Level::Error, "job work: a run may take 125s, consumer_timeout is 1m of its queue")),
    );
    check(&slow("40m", "prefetch = 4\n"), Some(7_200_000), None);
    check(&slow("14m", ""), None, None);
}

#[test]
fn a_timeout_that_nobody_sees_is_told_where_it_matters() {
    let check = |job: &str, expect: Option<&str>| {
        let found = judged(job, vec![("work", known(classic()))], None);
        let expect = expect.map(|job| (Level::Note, format!("consumer_timeout of rabbitmq.conf was not seen; {job}")));
        assert_eq!(of(&found, "consumer-timeout-unseen"), expect.into_iter().collect::<Vec<_>>(), "{job}");
    };
    check(&slow("30s", ""), None);
    check(&slow("10m", "prefetch = \"auto\"\n"), Some("job work holds messages for up to 11m"));
    check(&slow("4m", ""), Some("job work holds messages for up to 9m"));
    // The longest one speaks for all.
    let two = format!("{}[jobs.other]\nqueue = \"other\"\nhandler.command = [\"true\"]\n", slow("4m", ""));
    check(&two, Some("job work holds messages for up to 9m"));
    // There is an error already.
    check(&slow("40m", ""), None);
    let mut details = classic();
    details.effective.insert("consumer-timeout".to_owned(), json!(7_200_000));
    let found = judged(&slow("10m", ""), vec![("work", known(details))], None);
    assert_eq!(of(&found, "consumer-timeout-unseen"), []);
    let found = judged(&slow("10m", ""), vec![("work", known(classic()))], None);
    let told = found.iter().find(|found| found.code == "consumer-timeout-unseen").expect("it is told");
    let command = "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'";
    assert_eq!(told.mends, [Mend::Command(command.to_owned())]);
}

#[test]
fn a_bound_that_the_file_does_not_know_is_noted() {
    let mut details = Details { policies: vec!["p".to_owned()], ..classic() };
    details.effective.insert("max-length".to_owned(), json!(10));
    let found = judged(JOB, vec![("work", known(details))], None);
    let text = "the oldest messages of \"work\" are dropped when it is full (max-length) (policy p)";
    assert_eq!(of(&found, "max-length"), [(Level::Note, text.to_owned())]);
    let mut details = classic();
    details.arguments.insert("x-max-length-bytes".to_owned(), json!(10));
    details.arguments.insert("x-dead-letter-exchange".to_owned(), json!("e"));
    let found = judged(JOB, vec![("work", known(details))], None);
    let text =
        "the oldest messages of \"work\" go to the exchange \"e\", past warrend when it is full (max-length-bytes)";
    assert_eq!(of(&found, "max-length"), [(Level::Note, text.to_owned())]);
    // The file says so itself.
    let mut details = classic();
    details.arguments.insert("x-max-length".to_owned(), json!(10));
    let own = "[jobs.work]\nhandler.command = [\"true\"]\n[[jobs.work.queues]]\nname = \"work\"\nmax_length = 10\n";
    assert_eq!(of(&judged(own, vec![("work", known(details))], None), "max-length"), []);
}

#[test]
fn a_queue_that_nobody_lets_us_see_is_told() {
    let refused = || QueueSeen { counts: Err("cannot look at it".to_owned()), details: None };
    let error = (Level::Error, "cannot look at it".to_owned());
    let found = judged(JOB, vec![("work", refused()), ("work.dead", refused())], None);
    assert_eq!(of(&found, "queue-unseen"), [error.clone(), error]);
    let note = |why| {
        let details = Some(Err(why));
        let found = judged(JOB, vec![("work", QueueSeen { details, ..counted(0, 0) })], None);
        of(&found, "queue-unseen")
    };
    let text = "queue \"work\": arguments and policies were not seen: ";
    assert_eq!(note(Unseen::Forbidden("no".to_owned())), [(Level::Note, format!("{text}no"))]);
    assert_eq!(note(Unseen::Missing), [(Level::Note, format!("{text}the management API does not know it"))]);
}

#[test]
fn a_daemon_of_another_machine_is_noted() {
    let check = |called: &[&str], expect: Option<(Level, &str)>| {
        let consumers = called.iter().map(|called| ConsumerSeen {
            connection: "1.2.3.4:5 -> 1.2.3.4:5672".to_owned(),
            called: Some((*called).to_owned()),
        });
        let details = Details { consumers: consumers.collect(), ..classic() };
        let found = judged(JOB, vec![("work", known(details))], None);
        let expect = expect.map(|(level, text)| (level, format!("queue \"work\" is consumed by {text}")));
        assert_eq!(of(&found, "other-daemons"), expect.into_iter().collect::<Vec<_>>(), "{called:?}");
    };
    check(&[], None);
    check(&["warrend@here:12 job:work"], None);
    check(&["warrend@there:12 job:work"], Some((Level::Note, "the daemon there:12, not on this machine (here)")));
    check(
        &["warrend@here:12 job:work", "warrend@there:12 job:work", "warrend@there:12 job:work"],
        Some((Level::Warning, "2 daemons: here:12, there:12")),
    );
}

#[test]
fn retries_that_are_not_handed_on_are_told_with_what_moves_them() {
    let check = |vhost: &str, counted: Value, expect: Option<(&str, Vec<Mend>)>| {
        let mut config = config(JOB);
        config.broker.hosts[0].vhost = vhost.to_owned();
        let seen = known(Details::read(&counted));
        let inside = Inside { queues: [("warrend.delay.03".to_owned(), seen)].into(), ..Inside::default() };
        let scene = Scene { config: &config, inside: &inside, version: None, machine: "here", own: None };
        let found = judge(&scene).into_iter().find(|found| found.code == "ladder-leaving");
        let found = found.map(|found| (found.level, found.text, found.mends));
        let expect = expect.map(|(text, mends)| (Level::Warning, text.to_owned(), mends));
        assert_eq!(found, expect, "{counted}");
    };
    let three = json!(["rabbit@a", "rabbit@b", "rabbit@c"]);
    let counted =
        |number: u64| json!({"type": "quorum", "messages_dlx": number, "leader": "rabbit@a", "online": three});
    check("/", counted(0), None);
    check("/", json!({"type": "classic"}), None);
    let transfer = |queue: &str| {
        format!("ra:transfer_leadership({{{queue}, '\\''rabbit@a'\\''}}, {{{queue}, '\\''rabbit@b'\\''}}).")
    };
    let mend = Mend::Command(format!("rabbitmqctl eval '{}'", transfer(r"'\''%2F_warrend.delay.03'\''")));
    check("/", counted(320), Some(("320 retries wait to be handed on in \"warrend.delay.03\"", vec![mend])));
    let mend = Mend::Command(format!("rabbitmqctl eval '{}'", transfer(r"'\''a\'\''b_warrend.delay.03'\''")));
    check("a'b", counted(1), Some(("1 retry waits to be handed on in \"warrend.delay.03\"", vec![mend])));
    let alone = json!({"type": "quorum", "messages_dlx": 2, "leader": "rabbit@a", "online": ["rabbit@a"]});
    let anew = "supervisor:restart_child(rabbit_sup, rabbit_fifo_dlx_sup), \
                [ra:cast_aux_command(amqqueue:get_pid(Queue), {dlx, setup}) || Queue <- rabbit_amqqueue:list_local_quorum_queues()].";
    let mends = vec![
        Mend::Command(format!("rabbitmqctl -n rabbit@a eval '{anew}'")),
        Mend::Words("restart rabbit@a, which is alone with it".to_owned()),
    ];
    check("/", alone, Some(("2 retries wait to be handed on in \"warrend.delay.03\"", mends)));
}
