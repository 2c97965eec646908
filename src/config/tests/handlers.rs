//! Good handlers of every kind, and what becomes of them.

use super::*;

/// The handler of a job whose `[jobs.j.handler]` is this text, without any warning.
fn handler(text: &str) -> Handler {
    let folder = Folder::new(&complete(&format!("[jobs.j]\nqueue = \"q\"\n[jobs.j.handler]\n{text}\n")));
    let loaded = folder.good();
    assert!(loaded.warnings.entries.is_empty(), "{text}\n{}", loaded.warnings);
    loaded.config.jobs[0].handler.clone()
}

fn forward(text: &str) -> Forward {
    let Handler::Forward(forward) = handler(&format!("forward = {text}")) else { panic!("a forward handler: {text}") };
    forward
}

fn text(text: &str) -> Template {
    Template(vec![Part::Text(text.to_owned())])
}

fn name(name: &str) -> Part {
    Part::Name(name.to_owned())
}

#[test]
fn workers() {
    let Handler::Worker(worker) = handler("worker = [\"python3\", \"worker.py\"]") else { panic!("a worker") };
    assert_eq!(worker.program.argv, ["python3", "worker.py"]);
    let program = &worker.program;
    assert_eq!((program.timeout, program.kill_grace), (Duration::from_secs(30), Duration::from_secs(5)));
    assert_eq!((worker.batch, worker.linger), (1, Duration::ZERO));
    assert_eq!((worker.max_tasks, worker.max_memory, worker.max_age), (None, None, None));
    let all = "worker = [\"a\"]\ntimeout = \"2m\"\nkill_grace = \"1s\"\nenv = { A = \"b\" }\ncwd = \"/w\"\nbatch = 1000\n\
               linger = \"10s\"\nmax_tasks = 1\nmax_memory = \"1MiB\"\nmax_age = \"1h\"";
    let Handler::Worker(worker) = handler(all) else { panic!("a worker") };
    let program = Command {
        argv: vec!["a".to_owned()],
        timeout: Duration::from_secs(120),
        kill_grace: Duration::from_secs(1),
        env: [("A".to_owned(), "b".to_owned())].into(),
        cwd: Some(PathBuf::from("/w")),
    };
    let (linger, max_age) = (Duration::from_secs(10), Some(Duration::from_secs(3600)));
    let expect = Worker { program, batch: 1000, linger, max_tasks: Some(1), max_memory: Some(1 << 20), max_age };
    assert_eq!(worker, expect);
}

#[test]
fn webhooks() {
    let http = |text: &str| {
        let Handler::Http(http) = handler(text) else { panic!("an http handler: {text}") };
        http
    };
    let plain = http("http = \"https://example.org\"");
    assert_eq!((&*plain.url, plain.timeout), ("https://example.org/", Duration::from_secs(30)));
    assert!(plain.headers.is_empty() && plain.secret_file.is_none() && plain.ca_file.is_none());
    let all = http(
        "http = \"https://example.org:8443/a?b=c\"\ntimeout = \"5s\"\nheaders = { Authorization = \"Bearer ${NAME}\", \
         \"X_1\" = \"\" }\nsecret_file = \"/s\"\nca_file = \"/c\"",
    );
    assert_eq!((&*all.url, all.timeout), ("https://example.org:8443/a?b=c", Duration::from_secs(5)));
    assert_eq!((&*all.headers["Authorization"], &*all.headers["X_1"]), ("Bearer value", ""));
    assert_eq!((all.secret_file.as_deref(), all.ca_file.as_deref()), (Some(Path::new("/s")), Some(Path::new("/c"))));
    let shown = format!("{all:?}");
    assert!(shown.contains("https://example.org:8443,") && !shown.contains("Bearer"), "{shown}");
    assert!(!shown.contains("/a"), "{shown}");
    for here in ["localhost:8000", "127.9.9.9", "[::1]:80", "api.localhost"] {
        http(&format!("http = \"http://{here}/x\""));
    }
}

#[test]
fn one_target() {
    let only = |forward: Forward| {
        let [Route { when: When::Always, to }] = &forward.routes[..] else { panic!("one route: {forward:?}") };
        assert_eq!(forward.otherwise, None);
        (to.exchange.clone(), to.routing_key.clone())
    };
    assert_eq!(only(forward("{ routing_key = \"r\" }")), (Template::default(), text("r")));
    assert_eq!(only(forward("{ exchange = \"e\" }")), (text("e"), Template(vec![name("routing_key")])));
    assert_eq!(only(forward("{ exchange = \"e\", routing_key = \"\" }")), (text("e"), Template::default()));
    let parts = vec![
        Part::Text("a{b}.".to_owned()),
        name("type"),
        name("X-Kind"),
        Part::Text(".".to_owned()),
        Part::Header("priority".to_owned()),
        Part::Text("value".to_owned()),
    ];
    let many =
        forward("{ exchange = \"{exchange}\", routing_key = \"a{{b}}.{type}{X-Kind}.{header:priority}${NAME}\" }");
    let (exchange, routing_key) = only(many);
    assert_eq!((exchange, &routing_key), (Template(vec![name("exchange")]), &Template(parts)));
    assert_eq!(routing_key.to_string(), "a{{b}}.{type}{X-Kind}.{header:priority}value");
    assert_eq!((routing_key.literal(), text("x").literal().as_deref()), (None, Some("x")));
}

#[test]
fn routes() {
    let found = forward(
        "{ routes = [ { match = \"image.*\", exchange = \"x\", routing_key = \"k\" }, \
         { header = \"kind\", value = \"pdf\", routing_key = \"pdf\" }, { header = \"kind\", value = -7, exchange = \"y\" }, \
         { header = \"any\", exchange = \"z\" }, { match = \"\", exchange = \"z\" } ], otherwise = \"dead\" }",
    );
    let header = |value: Option<&str>| When::Header { name: "kind".to_owned(), value: value.map(str::to_owned) };
    let same = Template(vec![name("routing_key")]);
    let route = |when, exchange, routing_key| Route { when, to: Target { exchange, routing_key } };
    let any = When::Header { name: "any".to_owned(), value: None };
    let expect = [
        route(When::RoutingKey("image.*".to_owned()), text("x"), text("k")),
        route(header(Some("pdf")), Template::default(), text("pdf")),
        route(header(Some("-7")), text("y"), same.clone()),
        route(any, text("z"), same.clone()),
        route(When::RoutingKey(String::new()), text("z"), same.clone()),
    ];
    assert_eq!(found.routes, expect);
    assert_eq!(found.otherwise, None);
    let found = forward("{ routes = [{ match = \"#\", exchange = \"x\" }], otherwise = { exchange = \"o\" } }");
    assert_eq!(found.otherwise, Some(Target { exchange: text("o"), routing_key: same }));
}

#[test]
fn prefetch_and_reply() {
    let job = |text: &str| {
        let text = format!("[jobs.j]\nqueue = \"q\"\n{text}\n");
        Folder::new(&complete(&text)).good().config.jobs.remove(0)
    };
    let prefetch = |text: &str| job(text).prefetch;
    assert_eq!(prefetch("handler.worker = [\"a\"]\nhandler.batch = 50"), Prefetch::Fixed(400));
    assert_eq!(prefetch("handler.worker = [\"a\"]\nhandler.batch = 1000"), Prefetch::Fixed(2000));
    assert_eq!(prefetch("handler.http = \"https://h\""), Prefetch::Fixed(8));
    assert_eq!(prefetch("handler.forward.exchange = \"e\""), Prefetch::Fixed(200));
    assert_eq!(prefetch("handler.command = [\"a\"]\nprefetch = \"auto\""), Prefetch::Auto);
    // It has nothing to measure, which is warned of.
    assert_eq!(prefetch("handler.discard = true\nprefetch = \"auto\""), Prefetch::Fixed(200));
    assert!(job("handler.command = [\"a\"]\nreply = true").reply);
    assert!(!job("handler.command = [\"a\"]").reply);
}
