//! Hostile input over real sockets. Whatever comes, it is refused clearly, nothing of it is stored, and the server goes on.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod socket;

use std::time::Duration;

use socket::{Answer, Ask, BODY_BYTES_MAX, Ground, Host, bank, path};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tollgate::Gate;
use tollgate_http::RequestId;

/// A bank, with what was stored before anything hostile happened.
struct Target {
    ground: Ground,
    gate: Gate,
    host: Host,
    before: Vec<String>,
}

impl Target {
    async fn new() -> Self {
        let ground = Ground::new();
        let gate = ground.gate().await;
        let host = Host::of(bank(&gate, &ground).router().unwrap()).await;
        let before = ground.everything().await;
        Self { ground, gate, host, before }
    }

    /// Nothing was stored, and an honest request goes its way.
    async fn must_be_unharmed(self) {
        assert_eq!(self.ground.everything().await, self.before, "something was stored");
        let id = RequestId::random();
        assert_eq!(self.host.put(id, "ada", "ada 5").await.status, 201);
        let paid = self.host.go("POST", id, "ada").await;
        assert_eq!((paid.status, paid.text()), (200, "receipt 1"));
        assert_eq!(self.host.go("DELETE", id, "ada").await.status, 204);
        assert_eq!(self.ground.kept().await, Vec::<String>::new());
        self.gate.close().await;
    }
}

fn refusal(status: u16, kind: &str) -> (u16, String) {
    (status, kind.to_owned())
}

const NO_PAUSE: Duration = Duration::ZERO;

/// The head of a `PUT` by hand, with what is said of its body.
fn put_head(id: RequestId, about_body: &str) -> String {
    format!("PUT {} HTTP/1.1\r\nhost: bank\r\nauthorization: Bearer ada\r\n{about_body}\r\n\r\n", path(id))
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_refused_before_it_is_read() {
    let target = Target::new().await;
    let head = put_head(RequestId::random(), "content-length: 10000000000");
    let answer = target.host.raw(&[head.as_bytes()], NO_PAUSE).await;
    assert_eq!(answer.refusal(), refusal(413, "too-large"));
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn a_body_that_turns_out_to_be_too_large_is_refused_where_it_does() {
    let target = Target::new().await;
    let head = put_head(RequestId::random(), "transfer-encoding: chunked");
    // Without its end: whoever waits for that waits for ever.
    let chunk = format!("{:x}\r\n{}\r\n", 60_000, "a".repeat(60_000));
    let answer = target.host.raw(&[head.as_bytes(), chunk.as_bytes(), chunk.as_bytes()], NO_PAUSE).await;
    assert_eq!(answer.refusal(), refusal(413, "too-large"));
    let exactly = "a ".repeat(BODY_BYTES_MAX / 2);
    let one_more = format!("{exactly}a");
    let answer = target.host.put(RequestId::random(), "ada", &one_more).await;
    assert_eq!(answer.refusal(), refusal(413, "too-large"));
    let id = RequestId::random();
    assert_eq!(target.host.put(id, "ada", &exactly).await.status, 201, "the limit itself is allowed");
    assert_eq!(target.host.go("DELETE", id, "ada").await.status, 204);
    assert_eq!(target.ground.kept().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_refused_however_it_is_announced() {
    let target = Target::new().await;
    for about_body in ["content-length: 1000", "transfer-encoding: chunked"] {
        let head = put_head(RequestId::random(), about_body);
        let drop: &[u8] = if about_body.starts_with('c') { b"a" } else { b"1\r\na\r\n" };
        let drips: Vec<&[u8]> = [head.as_bytes()].into_iter().chain(std::iter::repeat_n(drop, 20)).collect();
        let answer = target.host.raw(&drips, Duration::from_millis(40)).await;
        assert_eq!(answer.refusal(), refusal(408, "too-slow"), "{about_body}");
    }
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn a_hundred_slow_clients_keep_nobody_else_waiting() {
    let target = Target::new().await;
    let mut slow = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(target.host.address).await.unwrap();
        let head = put_head(RequestId::random(), "content-length: 1000");
        // Half of them don't even come to the end of the head.
        let length = if number % 2 == 0 { head.len() } else { head.len() / 2 };
        stream.write_all(&head.as_bytes()[..length]).await.unwrap();
        slow.push(stream);
    }
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_not_stored() {
    let target = Target::new().await;
    let whole = "ada 5 and some more";
    for about_body in [format!("content-length: {}", whole.len()), "transfer-encoding: chunked".to_owned()] {
        for end in [0, 1, 5, whole.len() - 1] {
            let mut stream = TcpStream::connect(target.host.address).await.unwrap();
            let head = put_head(RequestId::random(), &about_body);
            let body = if about_body.starts_with('c') {
                whole[..end].to_owned()
            } else {
                format!("{:x}\r\n{}", whole.len(), &whole[..end])
            };
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let answer = read_rest(stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{about_body} {end}: {answer}");
        }
    }
    target.must_be_unharmed().await;
}

async fn read_rest(mut stream: TcpStream) -> String {
    use tokio::io::AsyncReadExt;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(socket::PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn a_connection_that_is_closed_in_the_middle_of_anything_leaves_nothing() {
    let target = Target::new().await;
    let request = format!("{}ada 5", put_head(RequestId::random(), "content-length: 5"));
    // All but its last byte, where it would be whole.
    for end in (0..request.len() - 1).step_by(7) {
        let mut stream = TcpStream::connect(target.host.address).await.unwrap();
        stream.write_all(&request.as_bytes()[..end]).await.unwrap();
        drop(stream);
    }
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let target = Target::new().await;
    for method in ["PATCH", "OPTIONS", "TRACE", "PROPFIND", "CONNECTED", "put"] {
        let answer = target.host.ask(method, &path(RequestId::random()), "ada", Ask::default()).await;
        assert_eq!(answer.refusal(), refusal(405, "method-not-allowed"), "{method}");
        assert_eq!(answer.header("allow"), "PUT, POST, GET, HEAD, DELETE");
    }
    let answer = target.host.ask("PUT", "/payments/openapi.json", "ada", Ask::default()).await;
    assert_eq!(answer.refusal(), refusal(405, "method-not-allowed"));
    assert_eq!(answer.header("allow"), "GET, HEAD");
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn an_id_of_odd_bytes_is_refused_by_every_verb() {
    let target = Target::new().await;
    let long = "f".repeat(5_000);
    let odd = [
        "1",
        "order-1",
        "0190f3d25f0e7c3a9d538b1c6a2f4e7",
        "0190f3d25f0e7c3a9d538b1c6a2f4e777",
        "0190f3d25f0e7c3a9d538b1c6a2f4e7g",
        "0190f3d25f0e7c3a9d538b1c6a2f4e7%00",
        "%00",
        "%0d%0aset-cookie:%20a=b",
        "%ff%fe%fd",
        "%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9%c3%a9",
        "..%2f..%2fetc%2fpasswd",
        "..%5c..%5cwindows",
        "%2e%2e",
        "..",
        "+190f3d25f0e7c3a9d538b1c6a2f4e77",
        "0190f3d2_5f0e_7c3a_9d53_8b1c6a2f4e77",
        "{id}",
        "*",
        &long,
    ];
    for method in ["PUT", "POST", "GET", "DELETE"] {
        for id in odd {
            let head = format!(
                "{method} /payments/{id} HTTP/1.1\r\nhost: bank\r\nauthorization: Bearer ada\r\n\
                 content-length: 5\r\n\r\nada 5"
            );
            let answer = target.host.raw(&[head.as_bytes()], NO_PAUSE).await;
            assert_eq!(answer.refusal(), refusal(400, "invalid-id"), "{method} {id}");
        }
        // These are other paths: not ours to answer.
        for other in ["", "../payments", "a/b", "../../etc/passwd", "%zz/"] {
            let head = format!("{method} /payments/{other} HTTP/1.1\r\nhost: bank\r\n\r\n");
            let answer = target.host.raw(&[head.as_bytes()], NO_PAUSE).await;
            assert_eq!(answer.status, 404, "{method} {other}");
        }
    }
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn anothers_id_looks_like_one_that_was_never_used() {
    let target = Target::new().await;
    let (hers, unused) = (RequestId::random(), RequestId::random());
    let without_id = |answer: &Answer, id: RequestId| {
        let headers: Vec<String> = answer
            .headers
            .iter()
            .filter(|(name, _)| *name != "date")
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        (answer.status, headers, answer.text().replace(&id.to_string(), "ID"))
    };
    assert_eq!(target.host.put(hers, "ada", "ada 5").await.status, 201);
    let tag = target.host.put(hers, "ada", "ada 5").await.header("etag").to_owned();
    for state in ["stored", "executed", "deleted"] {
        match state {
            "executed" => assert_eq!(target.host.go("POST", hers, "ada").await.status, 200),
            "deleted" => assert_eq!(target.host.go("DELETE", hers, "ada").await.status, 204),
            _ => {}
        }
        let before = target.ground.everything().await;
        for method in ["POST", "GET", "DELETE"] {
            for headers in [&[][..], &[("if-match", tag.as_str())]] {
                let ask = || Ask { headers, ..Ask::default() };
                let other = target.host.ask(method, &path(hers), "eve", ask()).await;
                let never = target.host.ask(method, &path(unused), "eve", ask()).await;
                assert_eq!(other.refusal(), refusal(404, "unknown-id"), "{method}, {state}");
                assert_eq!(without_id(&other, hers), without_id(&never, unused), "{method}, {state}");
            }
        }
        if state != "deleted" {
            // She who puts one under a used id is refused as whoever does so.
            for body in ["ada 5", "eve 5"] {
                let answer = target.host.put(hers, "eve", body).await;
                assert_eq!(answer.refusal(), refusal(409, "id-in-use"), "{state}");
            }
            assert_eq!(target.ground.everything().await, before, "{state}");
        }
    }
    assert_eq!(target.host.go("GET", hers, "ada").await.refusal(), refusal(410, "deleted"));
    assert_eq!(target.ground.kept().await, Vec::<String>::new());
}

#[tokio::test]
async fn whoever_does_not_say_who_he_is_learns_nothing() {
    let target = Target::new().await;
    let id = RequestId::random();
    let garbage = ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer ../eve", "bearer\tada", "ÿþ"];
    for method in ["PUT", "POST", "GET", "DELETE"] {
        // Before anything else, the id included.
        for path in [path(id), "/payments/nonsense".to_owned()] {
            for credentials in garbage {
                let line = if credentials.is_empty() {
                    String::new()
                } else {
                    format!("authorization: {credentials}\r\n")
                };
                let head =
                    format!("{method} {path} HTTP/1.1\r\nhost: bank\r\n{line}content-length: 5\r\n\r\nada 5");
                let answer = target.host.raw(&[head.as_bytes()], NO_PAUSE).await;
                assert_eq!(answer.refusal(), refusal(401, "unauthenticated"), "{method} {credentials:?}");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
            }
        }
    }
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn headers_that_make_no_sense_are_refused() {
    let target = Target::new().await;
    let long = format!("text/{}", "x".repeat(1_024));
    for media_type in
        [&long, "nonsense", "text", "/", "text/", "a b/c", "text/plain, text/html", "tëxt/plain", ";a/b"]
    {
        let head = put_head(RequestId::random(), &format!("content-length: 5\r\ncontent-type: {media_type}"));
        let answer = target.host.raw(&[head.as_bytes(), b"ada 5"], NO_PAUSE).await;
        assert_eq!(answer.refusal(), refusal(400, "bad-request"), "{media_type}");
    }
    let twice = "content-length: 5\r\ncontent-type: text/plain\r\ncontent-type: text/html";
    let answer =
        target.host.raw(&[put_head(RequestId::random(), twice).as_bytes(), b"ada 5"], NO_PAUSE).await;
    assert_eq!(answer.refusal(), refusal(400, "bad-request"));
    for method in ["POST", "GET", "DELETE"] {
        for tag in ["nonsense", "\"", "\"a\"b\"", "W/", "\"a\" \"b\""] {
            let ask = Ask { headers: &[("if-match", tag)], ..Ask::default() };
            let answer = target.host.ask(method, &path(RequestId::random()), "ada", ask).await;
            assert_eq!(answer.refusal(), refusal(400, "bad-request"), "{method} {tag}");
        }
    }
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn what_is_no_http_at_all_is_refused_by_the_connection() {
    let target = Target::new().await;
    let id = RequestId::random();
    let many = "a: b\r\n".repeat(2_000);
    let long = "x".repeat(1 << 20);
    for (bytes, statuses) in [
        ("nonsense\r\n\r\n".to_owned(), &[400][..]),
        ("\0\x01\x02\x7f\r\n\r\n".to_owned(), &[400]),
        (put_head(id, "content-length: nonsense"), &[400]),
        (put_head(id, "content-length: -1"), &[400]),
        (put_head(id, "content-length: 5\r\ncontent-length: 6"), &[400]),
        // Who asks for both smuggles.
        (put_head(id, "content-length: 5\r\ntransfer-encoding: chunked") + "zz\r\n", &[400]),
        (put_head(id, "transfer-encoding: nonsense"), &[400]),
        (put_head(id, "transfer-encoding: chunked") + "zz\r\nada 5", &[400]),
        (put_head(id, "a header: with a space in its name"), &[400]),
        (put_head(id, &format!("content-length: 5\r\n{many}a: b")) + "ada 5", &[431]),
        (put_head(id, &format!("content-length: 5\r\nlong: {long}")) + "ada 5", &[431]),
        (format!("PUT /payments/{long} HTTP/1.1\r\nhost: bank\r\n\r\n"), &[414, 431]),
    ] {
        let answer = target.host.raw(&[bytes.as_bytes()], NO_PAUSE).await;
        assert!(
            statuses.contains(&answer.status),
            "{} instead of {statuses:?} for {}",
            answer.status,
            &bytes[..bytes.len().min(200)]
        );
    }
    target.must_be_unharmed().await;
}

#[tokio::test]
async fn garbage_behind_a_good_request_is_no_part_of_it() {
    let target = Target::new().await;
    let id = RequestId::random();
    let good = format!("{}ada 5", put_head(id, "content-type: text/plain\r\ncontent-length: 5"));
    let mut stream = TcpStream::connect(target.host.address).await.unwrap();
    let pipelined = format!("{good}\0\0garbage PUT / HTTP/9\r\n\r\n");
    stream.write_all(pipelined.as_bytes()).await.unwrap();
    let answers = read_rest(stream).await;
    assert!(answers.starts_with("HTTP/1.1 201"), "{answers}");
    assert_eq!(answers.matches("HTTP/1.1").count(), 2, "{answers}");
    assert!(answers.contains("HTTP/1.1 400"), "{answers}");
    let again = target.host.put(id, "ada", "ada 5").await;
    assert_eq!(again.status, 200, "what was stored is the good request's body and nothing else");
    assert_eq!(target.host.go("DELETE", id, "ada").await.status, 204);
    assert_eq!(target.ground.kept().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_request_that_can_not_be_executed_anywhere_is_refused_when_it_is_stored() {
    let target = Target::new().await;
    let long = format!("raw {}", "x".repeat(3_000));
    let bodies = ["", "  ", "raw ", &long, "raw tollgate-http/payments/refunds/0/requests/7"];
    for body in bodies {
        let answer = target.host.put(RequestId::random(), "ada", body).await;
        assert_eq!(answer.refusal(), refusal(400, "bad-request"), "{body}");
    }
    let no_text = Ask { body: vec![0xff; 10].into(), ..Ask::default() };
    let answer = target.host.ask("PUT", &path(RequestId::random()), "ada", no_text).await;
    assert_eq!(answer.refusal(), refusal(400, "bad-request"));
    target.must_be_unharmed().await;
}
