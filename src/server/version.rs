//! The version of the program.

use std::sync::LazyLock;

static VERSION: LazyLock<String> = LazyLock::new(|| describe(option_env!("ATCOMM_COMMIT")));

/// Returns the version with the commit and its day, such as `0.1.0 (3dfcf41a2b10 2026-12-01)`. `make`
/// names the commit to the compiler (`ATCOMM_COMMIT`); a build by another command has the version
/// alone.
pub fn version() -> &'static str {
    &VERSION
}

fn describe(commit: Option<&str>) -> String {
    let version = env!("CARGO_PKG_VERSION");
    match commit.map(str::trim).filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_named_where_the_build_knows_it() {
        let version = env!("CARGO_PKG_VERSION");
        let known = describe(Some("3dfcf41a2b10 2026-12-01\n"));
        assert_eq!(known, format!("{version} (3dfcf41a2b10 2026-12-01)"));
        assert_eq!(describe(Some("")), version);
        assert_eq!(describe(None), version);
    }
}
