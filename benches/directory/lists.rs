//! What lists and numbers cost.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use testkit::bench::median;
use testkit::load::{Connection, ask};
use tokio::runtime::Runtime;

use crate::ROUNDS;
use crate::service::{LARGE_PDS, MEDIATORS, RARE_MEDIATOR};

const LIST: &str = "/xrpc/at.didcomm.directory.listRecipients?limit=500";
const STATS: &str = "/xrpc/at.didcomm.directory.getStats";

/// Pages through whole lists, and asks for the numbers.
pub(crate) fn lists(runtime: &Runtime, address: SocketAddr) {
    let host = LARGE_PDS.trim_start_matches("https://");
    for (what, filter) in [
        ("all", String::new()),
        ("enrolled", "&state=enrolled".to_owned()),
        ("of a PDS", format!("&host={host}")),
        ("of a mediator", format!("&mediator={}", MEDIATORS[0])),
        // Few accounts have both, and neither index leads to them.
        (
            "of a PDS with a mediator that is rare there",
            format!("&host={host}&mediator={RARE_MEDIATOR}&state=enrolled"),
        ),
    ] {
        let (accounts, mut pages) = runtime.block_on(pages_of(address, &format!("{LIST}{filter}")));
        pages.sort_by(f64::total_cmp);
        let at = |part: f64| pages[((pages.len() as f64 * part) as usize).min(pages.len() - 1)];
        println!(
            "listRecipients, {what}: {accounts} accounts in {} pages, p50 {:.1} ms, p99 {:.1} ms, \
             max {:.1} ms (target p99 under 20 ms)",
            pages.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    for connections in [1, 64] {
        let report = ask(address, connections, Duration::from_secs(3), |_| {
            STATS.to_owned()
        });
        println!(
            "getStats, {connections} connection(s): {:.0}/s, p50 {:.2} ms, p99 {:.2} ms (target p99 \
             under 5 ms)",
            report.rate, report.p50, report.p99
        );
    }
    let read: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            // An answer is given again within a second.
            std::thread::sleep(Duration::from_millis(1050));
            runtime.block_on(time(address, STATS))
        })
        .collect();
    println!(
        "getStats, read from the store: {:.2} ms (target under 5 ms)",
        median(&read)
    );
}

/// Returns the accounts of a list, and the time of each page in milliseconds.
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

/// Returns the time of an answer in milliseconds.
async fn time(address: SocketAddr, path: &str) -> f64 {
    let mut connection = Connection::connect(address).await;
    let began = Instant::now();
    let answer = connection.get(path).await;
    assert_eq!(answer.status, 200, "{path}");
    began.elapsed().as_secs_f64() * 1000.0
}
