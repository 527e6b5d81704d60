//! Lists in pages.

use crate::stack::Stack;
use axum::http::Method;

/// Every page from `path` on, names only; the token alone is sent from the second page on.
async fn walk(stack: &Stack, first: &str, next: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut page = stack.get(first).await;
    loop {
        assert_eq!(page.status, 200, "{}", page.body);
        pages.push(page.names());
        let Some(token) = page.next_page() else {
            return pages;
        };
        page = stack.get(&format!("{next}page_token={token}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn pages_add_up_in_every_order_and_the_token_carries_the_scan() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    stack.project("other").await;
    let names = ["ant", "bee", "cat", "dog", "eel"];
    let mut ids = Vec::new();
    for name in names {
        ids.push((stack.stopped("demo", name).await, name));
    }
    stack.stopped("other", "fox").await;
    ids.sort();
    let by_id: Vec<_> = ids.iter().map(|(_, name)| *name).collect();
    let backwards: Vec<_> = names.iter().rev().copied().collect();
    assert_ne!(by_id, names, "the ids say nothing about the names");
    for (sort, expected) in [
        ("", names.to_vec()),
        ("&sort_by=name_ascending", names.to_vec()),
        ("&sort_by=name_descending", backwards),
        ("&sort_by=id_ascending", by_id),
    ] {
        for limit in 1..=6 {
            let first = format!("/v1/instances?project=demo&limit={limit}{sort}");
            let pages = walk(&stack, &first, &format!("/v1/instances?limit={limit}&")).await;
            assert!(
                pages.iter().all(|page| page.len() <= limit && !page.is_empty()),
                "{sort} {limit}: {pages:?}"
            );
            assert_eq!(pages.concat(), expected, "{sort} {limit}");
        }
    }
    let pages = walk(&stack, "/v1/projects?limit=1", "/v1/projects?limit=1&").await;
    assert_eq!(pages, [["demo"], ["other"]]);
}

#[tokio::test(start_paused = true)]
async fn what_is_there_all_along_is_listed_once_whatever_comes_and_goes() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    for name in ["bee", "dog", "fox", "hen"] {
        stack.stopped("demo", name).await;
    }
    let page = stack.get("/v1/instances?project=demo&limit=2").await;
    assert_eq!(page.names(), ["bee", "dog"]);
    let token = page.next_page().unwrap();
    // Before and behind the position; and the very row that the position names goes.
    stack.stopped("demo", "ant").await;
    stack.stopped("demo", "eel").await;
    for gone in ["dog", "fox"] {
        let path = format!("/v1/instances/{gone}?project=demo");
        assert_eq!(stack.call(Method::DELETE, &path, "").await.status, 204);
    }
    let page = stack.get(&format!("/v1/instances?page_token={token}")).await;
    assert_eq!((page.names(), page.next_page()), (vec!["eel".to_owned(), "hen".to_owned()], None));
}

#[tokio::test(start_paused = true)]
async fn the_token_wins_over_everything_but_the_limit() {
    let stack = Stack::start(1).await;
    stack.project("demo").await;
    stack.project("other").await;
    for name in ["ant", "bee", "cat", "dog"] {
        stack.stopped("demo", name).await;
    }
    stack.stopped("other", "fox").await;
    let token = stack.get("/v1/instances?project=demo&limit=1").await.next_page().unwrap();
    for others in ["project=other", "sort_by=name_descending", "sort_by=nonsense", "project=nope"] {
        let page = stack.get(&format!("/v1/instances?page_token={token}&limit=2&{others}")).await;
        assert_eq!(
            (page.status.as_u16(), page.names()),
            (200, vec!["bee".to_owned(), "cat".to_owned()]),
            "{others}"
        );
    }
    let elsewhere = stack.get(&format!("/v1/projects?page_token={token}")).await;
    let message = "query parameter \"page_token\" is not a token of this list; start again without it";
    assert_eq!(elsewhere.refusal(), (400, "InvalidRequest", message));
}

#[tokio::test(start_paused = true)]
async fn limits_and_orders_are_checked() {
    let stack = Stack::start(3).await;
    stack.project("demo").await;
    for nth in 0..120 {
        stack.stopped("demo", &format!("web-{nth}")).await;
    }
    let list = |rest: &str| format!("/v1/instances?project=demo{rest}");
    assert_eq!(stack.get(&list("")).await.names().len(), 100, "the default");
    for huge in ["10000", "10001", "99999999999999999999999"] {
        assert_eq!(stack.get(&list(&format!("&limit={huge}"))).await.names().len(), 120, "{huge} is clamped");
    }
    for limit in ["0", "-1", "1.5", "x", "", "%2B1"] {
        let message = "query parameter \"limit\" must be a whole number of at least 1";
        let answer = stack.get(&list(&format!("&limit={limit}"))).await;
        assert_eq!(answer.refusal(), (400, "InvalidRequest", message), "{limit}");
    }
    let sorts = "query parameter \"sort_by\" must be one of: name_ascending, name_descending, id_ascending";
    let answer = stack.get(&list("&sort_by=time")).await;
    assert_eq!(answer.refusal(), (400, "InvalidRequest", sorts));
    for token in ["x", "7b7d", "%ff", &"7b".repeat(2_000)] {
        let answer = stack.get(&list(&format!("&page_token={token}"))).await;
        assert_eq!((answer.status.as_u16(), answer.refusal().1), (400, "InvalidRequest"), "{token}");
    }

    let page = stack.get("/v1/system/hardware/sleds?limit=2").await;
    let token = page.next_page().unwrap();
    let last = stack.get(&format!("/v1/system/hardware/sleds?page_token={token}")).await;
    let serials = |body: &serde_json::Value| {
        let items = body["items"].as_array().unwrap().clone();
        items.iter().map(|sled| sled["baseboard"]["serial"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!([serials(&page.body), serials(&last.body)].concat(), ["sim-0", "sim-1", "sim-2"]);
    let answer = stack.get("/v1/system/hardware/sleds?sort_by=name_ascending").await;
    let message = "query parameter \"sort_by\" must be one of: id_ascending";
    assert_eq!(answer.refusal(), (400, "InvalidRequest", message));
}
