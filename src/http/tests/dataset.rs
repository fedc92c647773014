//! The files of datasets.

use std::path::Path;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::dataset::{Editions, HASHES};

const TABLE: &str = "day,enrolled\n2030-01-01,40\n";
const LATEST: &str = "/dataset/latest.json";

/// Writes an edition with one table.
fn write_edition(folder: &Path, day: &str) {
    let folder = folder.join(day);
    std::fs::create_dir(&folder).unwrap();
    let sum = HEXLOWER.encode(&Sha256::digest(TABLE));
    std::fs::write(folder.join("daily.csv"), TABLE).unwrap();
    std::fs::write(folder.join(HASHES), format!("{sum}  daily.csv\n")).unwrap();
}

async fn serve(folder: &Path) -> TestServer {
    let setup = Setup {
        editions: Some(Editions::open(folder).unwrap()),
        ..Setup::default()
    };
    setup.start().await
}

#[tokio::test]
async fn the_newest_edition_is_listed_and_files_never_change() {
    let dir = tempfile::tempdir().unwrap();
    write_edition(dir.path(), "2030-01-01");
    write_edition(dir.path(), "2030-01-02");
    let server = serve(dir.path()).await;
    let latest = server.get(LATEST).await;
    assert_eq!(latest.json()["edition"], "2030-01-02");
    assert_eq!(latest.headers["cache-control"], "public, max-age=300");
    assert_eq!(latest.headers["access-control-allow-origin"], "*");
    let etag = latest.headers["etag"].clone();
    let again = server.get_with(LATEST, &[("if-none-match", &etag)]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let sums = &latest.json()["files"][0];
    assert_eq!(sums["name"], HASHES);
    let listed = &latest.json()["files"][1];
    assert_eq!(listed["url"], "/dataset/2030-01-02/daily.csv");
    assert_eq!(listed["bytes"], TABLE.len());

    for day in ["2030-01-01", "2030-01-02"] {
        let target = format!("/dataset/{day}/daily.csv");
        let file = server.get(&target).await;
        assert_eq!((file.status, file.body), (200, TABLE.as_bytes().to_vec()));
        assert_eq!(file.headers["content-type"], "text/csv; charset=utf-8");
        assert_eq!(
            file.headers["cache-control"],
            "public, max-age=31536000, immutable"
        );
        assert!(file.headers.contains_key("ratelimit-remaining"));
        let etag = file.headers["etag"].clone();
        assert_eq!(etag, format!("\"{}\"", listed["sha256"].as_str().unwrap()));
        let again = server.get_with(&target, &[("if-none-match", &etag)]).await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        assert_eq!(again.headers["etag"], etag);
        let head = ask(server.address, &format!("HEAD {target}"), &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.headers["content-length"], TABLE.len().to_string());
    }
}

#[tokio::test]
async fn the_page_leads_to_the_newest_edition_where_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let page = async |server: TestServer| {
        let page = server.get_with("/", &[("accept", "text/html")]).await;
        String::from_utf8(page.body).unwrap()
    };
    let link = "href=\"/dataset/latest.json\">The dataset up to 2030-01-01</a>";
    let none = page(serve(dir.path()).await).await;
    assert!(
        none.contains("For researchers") && !none.contains("/dataset/"),
        "{none}"
    );
    write_edition(dir.path(), "2030-01-01");
    let one = page(serve(dir.path()).await).await;
    assert!(one.contains(link), "{one}");
    let without = page(TestServer::new().await).await;
    assert!(!without.contains("/dataset/"), "{without}");
}

#[tokio::test]
async fn nothing_but_files_of_editions_is_served() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("secret"), "secret").unwrap();
    let folder = dir.path().join("datasets");
    std::fs::create_dir(&folder).unwrap();
    write_edition(&folder, "2030-01-01");
    let server = serve(&folder).await;
    // Written later, and so not a part of the edition.
    std::fs::write(folder.join("2030-01-01/other"), "secret").unwrap();
    for target in [
        "/dataset/",
        "/dataset/2030-01-01/",
        "/dataset/2030-01-01/other",
        "/dataset/2030-01-02/daily.csv",
        "/dataset/2030-01-01/..%2F..%2Fsecret",
        "/dataset/..%2F..%2Fsecret/daily.csv",
        "/dataset/2030-01-01/%2E%2E",
        "/dataset/2030-01-01/daily.csv/x",
        "/dataset/2030-01-01/daily.csv%00",
    ] {
        let answer = server.get(target).await;
        assert_eq!(answer.error(), (404, "NotFound".to_owned()), "{target}");
    }
    let post = ask(server.address, &format!("POST {LATEST}"), &[], "").await;
    assert_eq!(post.error().0, 405);

    let empty = tempfile::tempdir().unwrap();
    let without = serve(empty.path()).await;
    let none = without.get(LATEST).await;
    assert_eq!(none.error(), (404, "NotFound".to_owned()));
    let off = TestServer::new().await;
    assert_eq!(off.get(LATEST).await.error(), (404, "NotFound".to_owned()));
}

#[tokio::test]
async fn inv7_an_address_reads_so_many_files_at_once() {
    let dir = tempfile::tempdir().unwrap();
    write_edition(dir.path(), "2030-01-01");
    // More than what a socket holds.
    let large = "x".repeat(16 << 20);
    let sum = HEXLOWER.encode(&Sha256::digest(&large));
    let folder = dir.path().join("2030-01-01");
    std::fs::write(folder.join("large.csv"), large).unwrap();
    std::fs::write(folder.join(HASHES), format!("{sum}  large.csv\n")).unwrap();
    let server = serve(dir.path()).await;
    let target = "/dataset/2030-01-01/large.csv";
    let mut readers = Vec::new();
    for _ in 0..super::super::response_budget::MAX_PER_ADDRESS {
        let mut reader = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
        reader.write_all(request.as_bytes()).await.unwrap();
        // The answer has begun, and nothing more of it is read.
        let mut begin = [0; 12];
        reader.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
        readers.push(reader);
    }
    let refused = server.get(target).await;
    assert_eq!(refused.error(), (429, "RateLimitExceeded".to_owned()));
    // A client that leaves makes room.
    drop(readers);
    loop {
        let answer = server.get(target).await;
        if answer.status == 200 {
            assert_eq!(answer.body.len(), 16 << 20);
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
