//! Bad input: exact status, code and message, and nothing written.

use crate::stack::{Stack, new_instance};
use axum::http::Method;
use serde_json::{Value, json};

pub const NO_ID: &str = "a0b1c2d3-0000-4000-8000-000000000001";

/// A create in which one field is another.
fn with(field: &str, value: Value) -> String {
    let mut body = new_instance("web2");
    body[field] = value;
    body.to_string()
}

fn without(field: &str) -> String {
    let mut body = new_instance("web2");
    body.as_object_mut().unwrap().remove(field);
    body.to_string()
}

/// Method, path and body; status, error code and message.
pub type Row<'a> = (Method, &'a str, String, u16, &'a str, String);

pub fn bad<'a>(method: Method, path: &'a str, body: String, message: &str) -> Row<'a> {
    (method, path, body, 400, "InvalidRequest", message.to_owned())
}

pub fn missing(method: Method, path: &str, body: String, message: String) -> Row<'_> {
    (method, path, body, 404, "ObjectNotFound", message)
}

pub async fn check(stack: &Stack, table: Vec<Row<'_>>) {
    for (method, path, body, status, code, message) in table {
        let durable = stack.durable();
        let answer = stack.call(method.clone(), path, body.clone()).await;
        let shown: String = body.chars().take(120).collect();
        let about = format!("{method} {path} {shown}: {}", answer.body);
        assert_eq!((answer.status.as_u16(), answer.refusal().1), (status, code), "{about}");
        assert_eq!(answer.refusal().2, message, "{about}");
        assert_eq!(stack.durable(), durable, "{about}: nothing was written");
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_is_refused_by_field() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let gib = 1_u64 << 30;
    let unparsed = |rest: &str| format!("unable to parse the request body: {rest}");
    let characters = |c: char| {
        format!(
            "name: name contains invalid character: {c:?} (allowed are lowercase, uppercase, digits and \"-\")"
        )
    };
    let begin = "name: name must begin with an ASCII lowercase character".to_owned();
    let ncpus = "ncpus: ncpus must be between 1 and 254".to_owned();
    let label = "hostname: hostname must consist of labels of letters, digits and inner hyphens, of 1 to 63 characters, \
                 joined by dots";
    let request = "InvalidRequest";
    let value = "InvalidValue";
    let rows = vec![
        (without("name"), request, unparsed("field \"name\" is missing")),
        (without("description"), request, unparsed("field \"description\" is missing")),
        (without("hostname"), request, unparsed("field \"hostname\" is missing")),
        (without("ncpus"), request, unparsed("field \"ncpus\" is missing")),
        (without("memory"), request, unparsed("field \"memory\" is missing")),
        (with("name", Value::Null), request, unparsed("field \"name\" must not be null")),
        (with("name", json!(7)), request, unparsed("field \"name\" must be a string, not a number")),
        (
            with("ncpus", json!("2")),
            request,
            unparsed("field \"ncpus\" must be a whole number, not a string"),
        ),
        (
            with("ncpus", json!(-1)),
            request,
            unparsed("field \"ncpus\" must be a whole number, not a negative number"),
        ),
        (
            with("memory", json!(1.5)),
            request,
            unparsed("field \"memory\" must be a whole number, not a fraction or a number out of range"),
        ),
        (
            with("start", json!("yes")),
            request,
            unparsed("field \"start\" must be true or false, not a string"),
        ),
        (with("name", json!("")), value, "name: name requires at least one character".to_owned()),
        (with("name", json!("Web")), value, begin.clone()),
        (with("name", json!("ünïcode")), value, begin.clone()),
        (with("name", json!("1web")), value, begin),
        (with("name", json!("größe")), value, characters('ö')),
        (with("name", json!("a💥")), value, characters('💥')),
        (with("name", json!("a b")), value, characters(' ')),
        (with("name", json!("a\u{0}")), value, characters('\0')),
        (with("name", json!("a-")), value, "name: name cannot end with \"-\"".to_owned()),
        (
            with("name", json!("a".repeat(64))),
            value,
            "name: name may contain at most 63 characters".to_owned(),
        ),
        (
            with("name", json!(NO_ID)),
            value,
            "name: name cannot be a UUID, to keep names and ids apart".to_owned(),
        ),
        (with("hostname", json!("-x")), value, label.to_owned()),
        (with("hostname", json!("")), value, "hostname: hostname must have 1 to 253 characters".to_owned()),
        (
            with("description", json!("ü".repeat(513))),
            value,
            "description: description may contain at most 512 characters".to_owned(),
        ),
        (with("ncpus", json!(0)), value, ncpus.clone()),
        (with("ncpus", json!(255)), value, ncpus.clone()),
        (with("ncpus", json!(65_537)), value, ncpus),
        (with("memory", json!(gib - 1)), value, "memory: memory must be at least 1 GiB".to_owned()),
        (with("memory", json!(gib + 1)), value, "memory: memory must be a whole number of GiB".to_owned()),
        (with("memory", json!(1537 * gib)), value, "memory: memory must be at most 1536 GiB".to_owned()),
        (
            with("auto_restart_policy", json!("always")),
            value,
            "auto_restart_policy: auto_restart_policy must be \"never\" or \"best_effort\"".to_owned(),
        ),
    ];
    let path = "/v1/instances?project=demo";
    let table = rows.into_iter().map(|(body, code, message)| (Method::POST, path, body, 400, code, message));
    check(&stack, table.collect()).await;
    assert!(stack.get(path).await.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_object_is_refused() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let json = |rest: &str| format!("unable to parse the request body as JSON: {rest}");
    let empty = "the request body is empty; send a JSON object".to_owned();
    let twice = r#"{"name":"a","name":"b"}"#.to_owned();
    let rows = vec![
        (String::new(), empty),
        ("{".to_owned(), json("EOF while parsing an object at line 1 column 1")),
        ("[]".to_owned(), json("invalid type: sequence, expected an object at line 1 column 0")),
        ("\"demo\"".to_owned(), json("invalid type: string \"demo\", expected an object at line 1 column 6")),
        ("{}garbage".to_owned(), json("trailing characters at line 1 column 3")),
        (twice, json("field \"name\" is given more than once at line 1 column 23")),
    ];
    for path in ["/v1/instances?project=demo", "/v1/projects"] {
        let rows = rows.clone().into_iter();
        let table = rows.map(|(body, message)| (Method::POST, path, body, 400, "InvalidRequest", message));
        check(&stack, table.collect()).await;
    }
    let answer = stack.call(Method::POST, "/v1/projects", &b"{\"name\":\"\xff\xfe\"}"[..]).await;
    let message = "the request body is not UTF-8; send a JSON object in UTF-8";
    assert_eq!(answer.refusal(), (400, "InvalidRequest", message));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_meant_is_refused() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let web = stack.stopped("demo", "web").await;
    let create = new_instance("web2").to_string();
    let both = "when providing instance as an ID project should not be specified";
    let neither = "instance should either be UUID or project should be specified";
    let required = "query parameter \"project\" is required: the project's name or id";
    let twice = "query parameter \"project\" is given more than once; give it once";
    let no_name =
        "instance: \"Web\" is neither a UUID nor a name: name must begin with an ASCII lowercase character";
    let no_unicode = "instance: \"größe\" is neither a UUID nor a name: name contains invalid character: 'ö' (allowed are \
                      lowercase, uppercase, digits and \"-\")";
    let no_project = "project: \"\" is neither a UUID nor a name: name requires at least one character";
    let malformed = "the query is malformed: \"%ff\" is not percent-encoded UTF-8";
    let no_utf8 = "the path is not percent-encoded UTF-8";
    let gone = |what: &str, how: &str| format!("not found: {what} with {how}");
    let by_both = format!("/v1/instances/{web}?project=demo");
    let by_neither = format!("/v1/instances/{NO_ID}");
    let start = format!("/v1/instances/{NO_ID}/start");
    let project = format!("/v1/projects/{NO_ID}");
    let sled = format!("/v1/system/hardware/sleds/{NO_ID}");
    let in_project = format!("/v1/instances/web?project={NO_ID}");
    let (get, post, delete) = (|| Method::GET, || Method::POST, || Method::DELETE);
    let none = String::new;
    let id = format!("id \"{NO_ID}\"");
    let table = vec![
        bad(get(), &by_both, none(), both),
        bad(delete(), &by_both, none(), both),
        bad(get(), "/v1/instances/web", none(), neither),
        bad(delete(), "/v1/instances/web", none(), neither),
        bad(post(), "/v1/instances/web/stop", none(), neither),
        bad(get(), "/v1/instances", none(), required),
        bad(post(), "/v1/instances", create.clone(), required),
        bad(get(), "/v1/instances?project=demo&project=demo", none(), twice),
        bad(get(), "/v1/instances/Web?project=demo", none(), no_name),
        bad(get(), "/v1/instances/gr%C3%B6%C3%9Fe?project=demo", none(), no_unicode),
        bad(get(), "/v1/instances?project=", none(), no_project),
        bad(get(), "/v1/instances?project=%ff", none(), malformed),
        bad(get(), "/v1/instances/%ff?project=demo", none(), no_utf8),
        bad(get(), "/v1/projects/%ff", none(), no_utf8),
        bad(get(), "/v1/system/hardware/sleds/sim-0", none(), "sled: \"sim-0\" is not a UUID"),
        missing(get(), "/v1/instances/db?project=demo", none(), gone("instance", "name \"db\"")),
        missing(get(), "/v1/instances/db?project=nope", none(), gone("project", "name \"nope\"")),
        missing(get(), "/v1/instances?project=nope", none(), gone("project", "name \"nope\"")),
        missing(post(), "/v1/instances?project=nope", create.clone(), gone("project", "name \"nope\"")),
        missing(get(), &in_project, none(), gone("project", &id)),
        missing(get(), &by_neither, none(), gone("instance", &id)),
        missing(delete(), &by_neither, none(), gone("instance", &id)),
        missing(post(), &start, none(), gone("instance", &id)),
        missing(get(), &project, none(), gone("project", &id)),
        missing(delete(), &project, none(), gone("project", &id)),
        missing(Method::PUT, &project, "{}".to_owned(), gone("project", &id)),
        missing(get(), &sled, none(), gone("sled", &id)),
    ];
    check(&stack, table).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_in_a_body_or_its_type_is_not_looked_at() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    let mut body = new_instance("web");
    body["start"] = json!(false);
    body["network_interfaces"] = json!({"type": "default"});
    body["disks"] = json!([{"deep": [[[1]]]}]);
    body["größe"] = json!("💥");
    let request = axum::http::Request::builder()
        .method("POST")
        .uri("/v1/instances?project=demo&nonsense=1&nonsense=2")
        .header("content-type", "text/plain; charset=latin1")
        .header("api-version", "2099010100.0.0")
        .body(axum::body::Body::from(body.to_string()))
        .unwrap();
    assert_eq!(stack.send(request).await.status, 201);
    for verb in ["stop", "start"] {
        let request = axum::http::Request::builder()
            .method("POST")
            .uri(format!("/v1/instances/web/{verb}?project=demo"))
            .header("content-type", "application/json")
            .body(axum::body::Body::empty())
            .unwrap();
        assert_eq!(stack.send(request).await.status, 202, "{verb} without a body");
    }
}

#[tokio::test(start_paused = true)]
async fn a_project_is_refused_by_field() {
    let stack = Stack::start(0).await;
    stack.project("demo").await;
    let body =
        |name: Value, description: Value| json!({"name": name, "description": description}).to_string();
    let upper = "name: name must begin with an ASCII lowercase character";
    let uuid = "name: name cannot be a UUID, to keep names and ids apart";
    let long = "description: description may contain at most 512 characters";
    let number = "unable to parse the request body: field \"name\" must be a string, not a number";
    let missing = "unable to parse the request body: field \"description\" is missing";
    let null = "unable to parse the request body: field \"name\" must not be null";
    let rows = [
        (body(json!("Demo"), json!("")), "InvalidValue", upper),
        (body(json!("💥"), json!("")), "InvalidValue", upper),
        (body(json!(NO_ID), json!("")), "InvalidValue", uuid),
        (body(json!("web"), json!("x".repeat(513))), "InvalidValue", long),
        (body(json!(7), json!("")), "InvalidRequest", number),
        (json!({"name": "web"}).to_string(), "InvalidRequest", missing),
        (body(Value::Null, json!("")), "InvalidRequest", null),
    ];
    let created = rows.iter().map(|(body, code, message)| {
        (Method::POST, "/v1/projects", body.clone(), 400, *code, (*message).to_owned())
    });
    check(&stack, created.collect()).await;
    // What is missing or null in a change stays as it is.
    let changed = rows[..5].iter().map(|(body, code, message)| {
        (Method::PUT, "/v1/projects/demo", body.clone(), 400, *code, (*message).to_owned())
    });
    check(&stack, changed.collect()).await;
}
