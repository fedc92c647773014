//! What lists cost, anywhere in them.

use std::net::SocketAddr;
use std::time::Instant;

use testkit::bench::median;
use testkit::load::Connection;
use tokio::runtime::Runtime;

use crate::filled::{LARGE_PDS, MEDIATORS, RARE_MEDIATOR};
use crate::service::{bare, body_of};

const LIST: &str = "/xrpc/at.didcomm.directory.listRecipients?limit=500";

/// Passes over each list. Each page counts with the median of its times.
const PASSES: usize = 3;

/// Pages through whole lists.
pub(crate) fn lists(runtime: &Runtime, address: SocketAddr) {
    let body = body_of(runtime, address, LIST);
    let len = body.len();
    let bare = bare(runtime, body);
    let limit: Vec<f64> = (0..200)
        .map(|_| runtime.block_on(time(bare, "/")))
        .collect();
    println!(
        "a page of {len} bytes from a bare handler: p50 {:.1} ms, p99 {:.1} ms",
        at(&limit, 0.5),
        at(&limit, 0.99)
    );
    let host = LARGE_PDS.trim_start_matches("https://");
    for (what, filter) in [
        ("all", String::new()),
        ("enrolled", "&state=enrolled".to_owned()),
        ("inactive", "&state=inactive".to_owned()),
        ("invalid", "&state=invalid".to_owned()),
        ("of a PDS", format!("&host={host}")),
        ("of a mediator", format!("&mediator={}", MEDIATORS[0])),
        // Few accounts have both, and neither index leads to them.
        (
            "of a PDS with a mediator that is rare there",
            format!("&host={host}&mediator={RARE_MEDIATOR}&state=enrolled"),
        ),
    ] {
        let path = format!("{LIST}{filter}");
        let (accounts, pages) = runtime.block_on(passes(address, &path));
        let part = |n: usize| &pages[pages.len() * n / 3..pages.len() * (n + 1) / 3];
        println!(
            "listRecipients, {what}: {accounts} accounts in {} pages, p50 {:.1} ms, p99 {:.1} ms, \
             max {:.1} ms (target p99 under 20 ms); p99 of the first, second and last third {:.1}, \
             {:.1}, {:.1} ms",
            pages.len(),
            at(&pages, 0.5),
            at(&pages, 0.99),
            at(&pages, 1.0),
            at(part(0), 0.99),
            at(part(1), 0.99),
            at(part(2), 0.99)
        );
    }
}

/// Returns the figure below which a part of the figures is; 0 where there are none.
fn at(figures: &[f64], part: f64) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    let index = (figures.len() as f64 * part) as usize;
    let index = index.min(figures.len().saturating_sub(1));
    figures.get(index).copied().unwrap_or_default()
}

/// Returns the accounts of a list, and the time of each page in milliseconds.
async fn passes(address: SocketAddr, path: &str) -> (usize, Vec<f64>) {
    let (mut accounts, mut passes) = (0, Vec::new());
    for _ in 0..PASSES {
        let (found, times) = pages_of(address, path).await;
        accounts = found;
        passes.push(times);
    }
    let of_page = |page: usize| median(&passes.iter().map(|pass| pass[page]).collect::<Vec<_>>());
    (accounts, (0..passes[0].len()).map(of_page).collect())
}

async fn pages_of(address: SocketAddr, path: &str) -> (usize, Vec<f64>) {
    let mut connection = Connection::connect(address).await;
    let (mut accounts, mut times, mut next) = (0, Vec::new(), path.to_owned());
    loop {
        let began = Instant::now();
        let answer = connection.get(&next).await;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        assert_eq!(answer.status, 200, "{next}");
        let page: serde_json::Value = serde_json::from_slice(answer.body).unwrap();
        accounts += page["recipients"].as_array().unwrap().len();
        match page["cursor"].as_str() {
            Some(cursor) => next = format!("{path}&cursor={cursor}"),
            None => return (accounts, times),
        }
    }
}

/// Returns the time of an answer on a connection of its own, in milliseconds.
pub(crate) async fn time(address: SocketAddr, path: &str) -> f64 {
    let mut connection = Connection::connect(address).await;
    let began = Instant::now();
    let answer = connection.get(path).await;
    assert_eq!(answer.status, 200, "{path}");
    began.elapsed().as_secs_f64() * 1000.0
}
