//! The property that the stream stands for: whatever a host does, every event that did not come is
//! in a gap that is reported, and a host that keeps its events causes no gap.

use proptest::prelude::*;

use super::*;

/// What a host does about a cursor that it cannot continue at.
#[derive(Debug, Clone, Copy)]
struct Manners {
    /// Whether it says so; else it goes live, and loses the first event, as relays do.
    says_future: bool,
    /// Whether it says so; else it begins with its oldest event.
    says_outdated: bool,
    /// Whether it begins with the cursor's own event.
    inclusive: bool,
}

/// What happens at a host, or between the host and us.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// An account changes.
    Change,
    /// We receive up to this many events.
    Receive(usize),
    /// The connection breaks.
    Cut,
    /// Our process is killed and starts again with what it wrote.
    Restart,
    /// Some time passes, in which everything comes that is on its way.
    Wait,
    /// Some time passes, in which nothing comes.
    Delay,
    /// The host loses all events.
    Wipe,
    /// The host loses all events, and counts from 1.
    Recount,
    /// The host is put back to a state before our place, and goes on with numbers above all that it
    /// had. (What it loses behind a place that it still has, no reader can see.)
    Restore(usize),
    /// The host forgets its oldest events.
    Forget(usize),
}

#[derive(Debug, Clone)]
struct Event {
    seq: i64,
    at: Timestamp,
}

/// A host of numbered events, and a reader with what it has stored.
struct World {
    manners: Manners,
    kind: SourceKind,
    clock: Timestamp,
    instant: Instant,
    next: i64,
    kept: Vec<Event>,
    /// What is on its way to us: errors and infos of the host too.
    connection: Option<Vec<StreamItem>>,
    /// Whether the first live event is lost.
    loses_first: bool,
    state: StreamState,
    stored: (Option<Position>, Option<Covered>),
    changes: Vec<Timestamp>,
    received: Vec<Timestamp>,
    /// Gaps, with the time at which they were written.
    gaps: Vec<(Gap, Timestamp)>,
    first_connected: Option<Timestamp>,
    connected: Vec<Timestamp>,
}

#[derive(Debug, Clone)]
enum StreamItem {
    Event(Event),
    Outdated,
    Future,
}

impl World {
    fn new(kind: SourceKind, manners: Manners) -> Self {
        let instant = Instant::now();
        Self {
            manners,
            kind,
            clock: Timestamp::from_millis(1_800_000_000_000),
            instant,
            next: 1,
            kept: Vec::new(),
            connection: None,
            loses_first: false,
            state: StreamState::new(kind, None, None, instant),
            stored: (None, None),
            changes: Vec::new(),
            received: Vec::new(),
            gaps: Vec::new(),
            first_connected: None,
            connected: Vec::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.clock = self.clock.plus(time);
        self.instant += time;
    }

    fn change(&mut self) {
        self.pass(Duration::from_millis(7));
        let event = Event {
            seq: self.next,
            at: self.clock,
        };
        self.next += 1;
        self.changes.push(event.at);
        self.kept.push(event.clone());
        if let Some(connection) = &mut self.connection {
            if std::mem::take(&mut self.loses_first) {
                return;
            }
            connection.push(StreamItem::Event(event));
        }
    }

    fn connect(&mut self) {
        self.pass(Duration::from_millis(5));
        let cursor = self.state.start_cursor(self.clock);
        let newest = self.kept.last().map_or(0, |event| event.seq);
        let oldest = self.kept.first().map_or(self.next, |event| event.seq);
        let mut items = Vec::new();
        self.loses_first = false;
        if let Some(cursor) = cursor {
            if cursor > newest {
                if self.manners.says_future {
                    items.push(StreamItem::Future);
                } else {
                    self.loses_first = cursor > 0;
                }
            } else {
                if cursor + 1 < oldest && cursor > 0 && self.manners.says_outdated {
                    items.push(StreamItem::Outdated);
                }
                let from = cursor + i64::from(!self.manners.inclusive);
                let replay = self.kept.iter().filter(|event| event.seq >= from);
                items.extend(replay.cloned().map(StreamItem::Event));
            }
        }
        self.connection = Some(items);
        self.first_connected.get_or_insert(self.clock);
        self.state.on_connect(self.instant, self.clock);
        self.connected.push(self.clock);
    }

    fn receive(&mut self, most: usize) {
        for _ in 0..most {
            let Some(connection) = self.connection.as_mut().filter(|c| !c.is_empty()) else {
                break;
            };
            let item = connection.remove(0);
            let text;
            let event = match &item {
                StreamItem::Outdated => StreamEvent::OutdatedCursor,
                StreamItem::Future => StreamEvent::FutureCursor,
                StreamItem::Event(event) => {
                    text = event.at.to_string();
                    StreamEvent::At {
                        seq: event.seq.unsigned_abs(),
                        mark: Mark::of_frame(Some(&text), b""),
                    }
                }
            };
            let action = self.state.on_event(event, self.clock);
            let taken = matches!(action, Action::Continue | Action::Report(_));
            if let (StreamItem::Event(event), true) = (&item, taken) {
                self.received.push(event.at);
            }
            self.follow(action);
        }
        self.write();
    }

    fn follow(&mut self, action: Action) {
        match action {
            // What is reported is written, or else found again.
            Action::Continue | Action::PassOver | Action::Report(_) => {}
            Action::Disconnect(end) => self.end(&end),
        }
    }

    /// Writes progress: nothing that was received is lost by a restart after it.
    fn write(&mut self) {
        if let Some(progress) = self.state.take_progress(0, self.clock) {
            if progress.position.is_some() {
                self.stored.0 = progress.position;
            }
            self.stored.1 = progress.covered;
            self.gaps.extend(progress.gap.map(|gap| (gap, self.clock)));
        }
    }

    fn end(&mut self, end: &End) {
        self.write();
        self.connection = None;
        self.state.on_end(end, Duration::from_secs(1), self.clock);
        self.write();
    }

    fn cut(&mut self) {
        if self.connection.is_some() {
            self.end(&End::Lost("cut".to_owned()));
        }
    }

    fn delay(&mut self) {
        self.pass(REPEAT_TIMEOUT);
        if self.connection.is_some()
            && let Some(action) = self.state.on_time(self.instant, self.clock)
        {
            self.follow(action);
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Change => self.change(),
            Happening::Receive(most) => {
                if self.connection.is_none() {
                    self.connect();
                }
                self.receive(most);
            }
            Happening::Cut => self.cut(),
            Happening::Restart => {
                self.connection = None;
                let (position, covered) = self.stored.clone();
                if covered.is_none() {
                    self.first_connected = None;
                }
                self.state = StreamState::new(self.kind, position, covered, self.instant);
            }
            Happening::Wait => {
                self.receive(usize::MAX);
                self.delay();
            }
            Happening::Delay => self.delay(),
            // A host that starts again has no connections.
            Happening::Wipe => {
                self.cut();
                self.kept.clear();
            }
            Happening::Recount => {
                self.cut();
                self.kept.clear();
                self.next = 1;
            }
            Happening::Restore(lost) => {
                self.cut();
                let place = self.state.start_cursor(self.clock).unwrap_or(0);
                self.kept.retain(|event| event.seq <= place);
                let kept = self.kept.len().saturating_sub(lost);
                self.kept.truncate(kept);
                self.next += 1000;
            }
            Happening::Forget(lost) => {
                self.kept.drain(..lost.min(self.kept.len()));
            }
        }
    }

    /// Lets everything come to rest: more happens at the host, and time passes.
    fn rest(&mut self) {
        for _ in 0..4 {
            self.happen(Happening::Receive(usize::MAX));
            self.delay();
            self.change();
        }
        self.happen(Happening::Receive(usize::MAX));
    }

    /// Returns the changes that neither came nor are in a gap.
    fn silently_lost(&self) -> Vec<Timestamp> {
        let since = self.first_connected.unwrap_or(self.clock);
        // A gap ends with the connection that follows it at once.
        let end = |reported: Timestamp| {
            let mut next = self.connected.iter().copied().filter(|at| *at > reported);
            next.find(|at| at.since(reported) <= REREAD_TIMEOUT)
                .unwrap_or(reported)
        };
        let in_gap = |at: Timestamp| {
            let gap = |(gap, reported): &(Gap, Timestamp)| gap.since < at && at <= end(*reported);
            self.gaps.iter().any(gap)
        };
        self.changes
            .iter()
            .copied()
            // What was before the first connection is found by a backfill.
            .filter(|at| *at > since && !self.received.contains(at) && !in_gap(*at))
            .collect()
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => Just(Happening::Change),
        6 => (1..6_usize).prop_map(Happening::Receive),
        2 => Just(Happening::Cut),
        1 => Just(Happening::Restart),
        1 => Just(Happening::Wait),
    ]
}

fn loss() -> impl Strategy<Value = Happening> {
    prop_oneof![
        Just(Happening::Delay),
        Just(Happening::Wipe),
        Just(Happening::Recount),
        (0..6_usize).prop_map(Happening::Restore),
        (1..12_usize).prop_map(Happening::Forget),
    ]
}

fn manners() -> impl Strategy<Value = Manners> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(says_future, says_outdated, inclusive)| Manners {
            says_future,
            says_outdated,
            inclusive,
        },
    )
}

fn kind() -> impl Strategy<Value = SourceKind> {
    prop_oneof![Just(SourceKind::Pds), Just(SourceKind::Relay)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn inv2_every_event_that_did_not_come_is_in_a_reported_gap(
        kind in kind(),
        manners in manners(),
        happenings in prop::collection::vec(prop_oneof![9 => happening(), 1 => loss()], 1..80),
    ) {
        let mut world = World::new(kind, manners);
        world.connect();
        for happening in happenings {
            world.happen(happening);
        }
        world.rest();
        prop_assert_eq!(world.silently_lost(), vec![], "{:?}", world.gaps);
    }

    #[test]
    fn a_host_that_keeps_its_events_causes_no_gap(
        kind in kind(),
        manners in manners(),
        happenings in prop::collection::vec(happening(), 1..80),
    ) {
        let mut world = World::new(kind, manners);
        world.connect();
        // Without any event there is no place yet.
        world.change();
        world.happen(Happening::Receive(1));
        for happening in happenings {
            world.happen(happening);
        }
        world.rest();
        prop_assert_eq!(&world.gaps, &vec![]);
        prop_assert_eq!(world.silently_lost(), vec![]);
    }

    /// A host that cuts the connection after a few events, again and again, is caught up with.
    #[test]
    fn a_reader_far_behind_makes_progress_on_each_connection(
        manners in manners(),
        each in 2..5_usize,
    ) {
        let mut world = World::new(SourceKind::Relay, manners);
        world.connect();
        world.change();
        world.receive(1);
        world.cut();
        for _ in 0..100 {
            world.change();
        }
        // The stored event comes again, and that before it where the host begins with it.
        let repeated = 1 + usize::from(manners.inclusive);
        for _ in 0..100 {
            world.happen(Happening::Receive(repeated + each - 1));
            world.cut();
        }
        prop_assert_eq!(world.received.len(), 101);
        prop_assert_eq!(&world.gaps, &vec![]);
    }
}
