//! What a service keeps of datasets.

use super::*;

fn renewed(editions: &Editions, year: &Year, until: i32) -> bool {
    let request = DatasetRequest {
        settings: DatasetSettings {
            editions: 2,
            ..DatasetSettings::default()
        },
        ..request(None, Some(year.first.plus(until)))
    };
    editions
        .renew(&year.file(), &request, &mut || true)
        .unwrap()
}

fn folders(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[tokio::test]
async fn inv7_an_edition_is_made_once_and_the_newest_are_kept() {
    let year = year(11, 40, WORLDS[1]).await;
    let folder = year.path().join("deep").join("datasets");
    let editions = Editions::open(&folder).unwrap();
    assert_eq!(editions.latest(), None);
    for (until, is_new) in [(20, true), (20, false), (21, true), (5, false), (99, true)] {
        assert_eq!(renewed(&editions, &year, until), is_new, "{until}");
    }
    let kept = ["2030-01-22", "2030-02-09"];
    assert_eq!(folders(&folder), kept.map(str::to_owned).into());
    let latest = editions.latest().unwrap();
    assert_eq!(latest.day.to_string(), kept[1]);
    assert!(editions.of(year.first.plus(20)).is_none());
    // The same as one that is made by hand.
    let by_hand = make(&year, "by-hand", &request(None, None));
    for file in &latest.files {
        let (_, path) = latest.file(&file.name).unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes, std::fs::read(by_hand.join(&file.name)).unwrap());
        assert_eq!(file.sha256, HEXLOWER.encode(&Sha256::digest(&bytes)));
    }
    assert_eq!(latest.files.len(), folders(&by_hand).len());
    let again = Editions::open(&folder).unwrap();
    assert_eq!(again.latest(), Some(latest));
}

#[tokio::test]
async fn inv10_what_is_no_whole_edition_is_made_again() {
    let year = year(12, 30, WORLDS[1]).await;
    let folder = year.path().join("datasets");
    let editions = Editions::open(&folder).unwrap();
    assert!(renewed(&editions, &year, 10));
    let stopped = editions.renew(&year.file(), &request(None, None), &mut || false);
    assert!(matches!(stopped, Err(DatasetError::Stopped)));
    let first = editions.latest().unwrap();
    assert_eq!(first.day, year.first.plus(10));
    // Killed while an edition was written, and a file that was lost.
    std::fs::create_dir(folder.join("2030-01-20.part")).unwrap();
    let (_, lost) = first.file("daily.csv").unwrap();
    std::fs::remove_file(lost).unwrap();
    let again = Editions::open(&folder).unwrap();
    assert_eq!((again.latest(), folders(&folder)), (None, BTreeSet::new()));
    assert!(renewed(&again, &year, 10));
    assert_eq!(again.latest(), Some(first));
}

#[test]
fn an_edition_names_only_files_of_its_own_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("2030-01-01");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(dir.path().join("secret"), "").unwrap();
    std::fs::write(folder.join(HASHES), "00  ../secret\n").unwrap();
    assert_eq!(Editions::open(dir.path()).unwrap().latest(), None);
    assert_eq!(folders(dir.path()), ["secret".to_owned()].into());
}
