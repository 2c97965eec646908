use std::io::{Read as _, Write as _};

use super::*;
use crate::metrics::Form;
use request::{Refusal, Request, parse};

/// Of a daemon without jobs whose threads have ended: whatever is asked is answered at once.
fn panel() -> Panel {
    let (recorder, main) = (crossbeam_channel::bounded(1).0, crossbeam_channel::bounded(1).0);
    Panel { main, recorder, alerts: crossbeam_channel::bounded(1).0, started: Instant::now() }
}

struct Running {
    web: Web,
    address: SocketAddr,
}

fn start(hangs: Option<&'static str>) -> Running {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let hanging = Arc::new(move || hangs.map(str::to_owned));
    Running { web: Web::spawn(listener, panel(), hanging, || ()).unwrap(), address }
}

impl Running {
    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn each_path_has_its_answer() {
    let running = start(None);
    let check = |request: &str, status: &str, part: &str| {
        let answer = running.ask(&format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.contains(part), "{request}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nConnection: close") && head.contains("\r\nDate: "), "{head}");
        body.to_owned()
    };
    check("GET /healthz", "200 OK", "\r\n\r\nok\n");
    check("GET /readyz", "200 OK", "\r\n\r\nready\n");
    check("GET /metrics", "200 OK", "warrend_build_info{version=");
    check("GET /status", "200 OK", "\"schema\":1");
    check("GET /status/", "404 Not Found", "/metrics\n/healthz\n");
    check("DELETE /status", "405 Method Not Allowed", "\r\nAllow: GET, HEAD\r\n");
    check("DELETE /nothing", "404 Not Found", "");
    assert_eq!(check("HEAD /status", "200 OK", "application/json"), "");
    running.web.stop();
    let hanging = start(Some("job:work"));
    let answer = hanging.ask("GET /healthz HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("the thread job:work hangs\n"), "{answer}");
    hanging.web.stop();
}

#[test]
fn clients_that_say_nothing_give_way_and_do_not_keep_it_from_stopping() {
    let running = start(None);
    let mut silent: Vec<_> = (0..MOST_CLIENTS + 10).map(|_| running.connect()).collect();
    assert!(running.ask("GET /healthz HTTP/1.1\r\n\r\n").ends_with("ok\n"));
    // The first ones were hung up on.
    for stream in &mut silent[..10] {
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    }
    let began = Instant::now();
    running.web.stop();
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    assert_eq!(silent[20].read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn the_head_of_a_request_is_judged() {
    let check = |head: &str, expect: Option<Result<(&str, &str, Form), Refusal>>| {
        let expect = expect.map(|judged| {
            judged.map(|(method, path, form)| Request { method: method.to_owned(), path: path.to_owned(), form })
        });
        assert_eq!(parse(head.as_bytes()), expect, "{head:?}");
    };
    let good = |path, form| Some(Ok(("GET", path, form)));
    check("GET /a?b#c HTTP/1.1\r\n\r\n", good("/a", Form::Prometheus));
    check("GET http://h:1/a HTTP/1.1\r\n\r\n", good("/a", Form::Prometheus));
    check("GET http://h HTTP/1.1\r\n\r\n", good("/", Form::Prometheus));
    check("GET * HTTP/1.1\n\n", good("*", Form::Prometheus));
    check("GET / HTTP/1.1\r\nAccept: application/openmetrics-text\r\n\r\n", good("/", Form::OpenMetrics));
    check(
        "GET / HTTP/1.1\r\nAccept: text/plain\r\nACCEPT: */*;q=0.1, Application/OpenMetrics-Text; version=1.0.0\r\n\r\n",
        good("/", Form::OpenMetrics),
    );
    check("GET / HTTP/1.1\r\nAccept: application/openmetrics-text;q=0\r\n\r\n", good("/", Form::Prometheus));
    check("GET / HTTP/1.1\r\nAccept: \u{ff}\r\n\r\n", good("/", Form::Prometheus));
    check("", None);
    check("GET / HTTP/1.1\r\nHost:", None);
    check("GET / HTTP/3.0\r\n\r\n", Some(Err(Refusal::Version)));
    check("nonsense\r\n\r\n", Some(Err(Refusal::Garbage)));
    check("GET / HTTP/1.1\r\nno colon\r\n\r\n", Some(Err(Refusal::Garbage)));
    check(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000)), Some(Err(Refusal::TooLarge)));
    check(&format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65)), Some(Err(Refusal::TooLarge)));
}

mod fuzz {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_head_is_judged_or_waited_for(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "(GET|HEAD|get) [/a-z:?#%]{0,20} HTTP/[0-9]\\.[0-9]\r?\n([A-Za-z]{1,9}: ?[ -~]{0,30}\r?\n){0,70}(\r?\n)?".prop_map(String::into_bytes),
            (0..20_000_usize).prop_map(|long| vec![b'a'; long]),
        ]) {
            let judged = parse(&bytes);
            prop_assert!(judged.is_some() || bytes.len() < 8 * 1024);
            if let Some(Ok(request)) = judged {
                prop_assert!(!request.path.contains('?') && !request.method.is_empty());
            }
        }
    }
}
