//! The log on standard error, and the progress of backfills above its end.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::{CliError, Exit};
use crate::config::{LogFormat, LogSettings};
use crate::ingest::BackfillProgress;

/// Interval in which the spinner of a backfill moves.
const SPIN: Duration = Duration::from_millis(200);

/// Directive that is added to every filter.
const SILENT: &str = "tungstenite=info";

/// Starts the log. Returns where progress bars are drawn, if the log goes to a terminal.
pub(super) fn start(settings: &LogSettings) -> Result<Option<MultiProgress>, CliError> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| CliError {
        exit: Exit::Usage,
        message: format!("log.filter {:?}: {error}", settings.filter),
        hint: "a filter is a level such as info, or a list such as atcomm=debug,warn".to_owned(),
    })?;
    // Below this level the library logs whole frames, and frames of the mediator name recipients.
    let filter = match SILENT.parse() {
        Ok(silent) => filter.add_directive(silent),
        Err(_) => filter,
    };
    let terminal = io::stderr().is_terminal();
    let bars = (terminal && settings.format == LogFormat::Text).then(MultiProgress::new);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(terminal && std::env::var_os("NO_COLOR").is_none())
        .with_writer(Lines(bars.clone()));
    let started = match settings.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    // Only tests start a second log; the first one stays.
    let _ = started;
    Ok(bars)
}

/// Writes lines to standard error without tearing progress bars.
struct Lines(Option<MultiProgress>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self.0.as_ref())
    }
}

/// Writer of one event, which the subscriber writes in one piece.
struct Line<'a>(Option<&'a MultiProgress>);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(bars) => bars.suspend(|| io::stderr().write(line)),
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Draws the progress of backfills until the service ends.
pub(super) async fn show(
    bars: MultiProgress,
    mut progress: watch::Receiver<Vec<BackfillProgress>>,
) {
    let mut shown: Vec<(String, ProgressBar)> = Vec::new();
    loop {
        for backfill in progress.borrow_and_update().iter() {
            let known = shown.iter().find(|(source, _)| *source == backfill.source);
            let bar = match known {
                Some((_, bar)) => bar.clone(),
                None if backfill.done => continue,
                None => {
                    let bar = bars.add(ProgressBar::new_spinner());
                    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                        bar.set_style(style);
                    }
                    bar.enable_steady_tick(SPIN);
                    shown.push((backfill.source.clone(), bar.clone()));
                    bar
                }
            };
            bar.set_message(format!(
                "enumerating {}: {} accounts seen",
                backfill.source, backfill.seen
            ));
            if backfill.done {
                bar.finish_and_clear();
                shown.retain(|(source, _)| *source != backfill.source);
            }
        }
        if progress.changed().await.is_err() {
            for (_, bar) in shown {
                bar.finish_and_clear();
            }
            return;
        }
    }
}
