//! What is looked at: the list of events, where one stands in it, and what is shown of that event.
//!
//! ```text
//!  key ──▶ keys::press ──▶ Model ──▶ settle (reads what is to be shown) ──▶ view::draw
//! ```
//!
//! Invariants:
//! * the one who draws reads nothing and changes nothing: all that a screen shows is in here after `settle`;
//! * what cannot be read or folded is shown where it would stand, and everything else stays usable.

use super::tree::{self, Row};
use super::view;
use journal::StreamName;
use lifecycle::{InstanceId, Timestamp};
use replay::browse::{
    Direction, Events, Folded, Folds, Found, LaneWindow, Listed, Seek, Track, Wanted, lane_window,
};
use replay::{At, Condition, Error, Source};
use serde_json::Value;
use std::collections::BTreeSet;

/// Longest line that is typed, characters.
pub const TYPED_CHARS_MAX: usize = 200;

/// Which half keys go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// The list of events.
    Events,
    /// What is shown of one.
    Detail,
}

/// What is shown of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// The state after it, as a tree.
    State,
    /// The events around it, a lane for each VMM and saga.
    Lanes,
    /// The saga under way, step by step.
    Saga,
    /// The event itself.
    Event,
}

impl Panel {
    /// In the order of their keys.
    pub const ALL: [Self; 4] = [Self::State, Self::Lanes, Self::Saga, Self::Event];
}

/// What is being typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A text to look for.
    Search,
    /// A moment to go to.
    Moment,
    /// A condition to go on to.
    Condition,
}

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Somebody has seen enough.
    Quit,
    /// Ctrl-C.
    Interrupted,
}

/// An event, and the states on both sides of it.
pub struct Detail {
    /// Its track and place.
    of: (Track, u64),
    /// The event; none if there is none.
    pub listed: Option<Listed>,
    /// The state before it.
    pub before: Folded,
    /// The state after it.
    pub after: Folded,
    /// Both as people look at them.
    fields: (Value, Value),
    /// Why there are no states.
    pub trouble: Option<String>,
}

/// Everything that a screen shows.
pub struct Model<'a> {
    source: &'a dyn Source,
    /// What is read, as people named it.
    pub origin: String,
    now: Timestamp,
    pub(super) events: Events<'a>,
    folds: Folds<'a>,
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// The place where one stands.
    pub selected: u64,
    /// The first place that is on the screen.
    pub top: u64,
    /// The events that are on the screen.
    pub rows: Vec<Listed>,
    /// Where keys go.
    pub focus: Focus,
    /// What is shown.
    pub panel: Panel,
    /// What is known of the event where one stands.
    pub detail: Detail,
    /// The lines of the tree.
    pub tree: Vec<Row>,
    /// The line of the tree where one stands.
    pub tree_at: usize,
    /// Branches of the tree that somebody turned.
    pub(super) turned: BTreeSet<String>,
    /// Whether only what changed is in the tree.
    pub is_only_changes: bool,
    /// The lanes around the event, or why there are none.
    pub lanes: Result<LaneWindow, String>,
    /// The first lane that is on the screen.
    pub lane_first: usize,
    /// Lines of the panel that are above the screen.
    pub scroll: usize,
    /// What is being typed.
    pub prompt: Option<(Asked, String)>,
    /// What there is to say, until the next key.
    pub said: Option<String>,
    /// Whether the keys are explained.
    pub is_helping: bool,
    /// The search under way, and the place it has come to.
    pub seek: Option<(Seek, u64)>,
    /// The text that was looked for last.
    pub searched: Option<String>,
    /// Why it is over, if it is.
    pub over: Option<Over>,
}

impl<'a> Model<'a> {
    /// Begins at the end of an instance's history, or of the whole log.
    pub fn open(
        source: &'a dyn Source,
        instance: Option<InstanceId>,
        origin: String,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let track = instance.map_or(Track::Log, Track::Instance);
        let events = Events::open(source, track)?;
        let selected = events.last();
        let mut model = Self {
            source,
            origin,
            now,
            events,
            folds: Folds::new(source),
            size: (80, 24),
            selected,
            top: selected.max(1),
            rows: Vec::new(),
            focus: Focus::Events,
            panel: Panel::State,
            detail: Detail::nothing((track, 0)),
            tree: Vec::new(),
            tree_at: 0,
            turned: BTreeSet::new(),
            is_only_changes: false,
            lanes: Err(String::new()),
            lane_first: 0,
            scroll: 0,
            prompt: None,
            said: None,
            is_helping: false,
            seek: None,
            searched: None,
            over: None,
        };
        model.settle();
        Ok(model)
    }

    /// Which events are listed.
    pub const fn track(&self) -> Track {
        self.events.track()
    }

    /// How many there are.
    pub const fn last(&self) -> u64 {
        self.events.last()
    }

    /// Goes to a moment as people write it.
    pub fn go_to(&mut self, text: &str) -> Result<(), String> {
        self.selected = match text {
            "first" => 1,
            "last" => self.last(),
            _ => {
                let at = At::parse(text, self.now).map_err(|error| error.to_string())?;
                self.events.place_of(at)?
            }
        };
        Ok(())
    }

    /// Goes so many events up or down.
    pub fn walk(&mut self, by: i64) {
        self.selected = self.selected.saturating_add_signed(by);
    }

    /// Lists only the events of the instance where one stands, or all again; one stays at the same event.
    pub fn turn(&mut self, is_to_one: bool) {
        let Some(listed) = &self.detail.listed else {
            return;
        };
        let (track, place) = match (is_to_one, listed.stream) {
            (false, _) => (Track::Log, listed.hit.position),
            (true, Some(StreamName::Instance(id))) => (Track::Instance(id), listed.hit.version),
            (true, _) => {
                self.said = Some("this event is of no instance: there is nothing to follow".to_owned());
                return;
            }
        };
        if track == self.track() {
            return;
        }
        match Events::open(self.source, track) {
            Ok(events) => {
                self.events = events;
                self.selected = place;
                self.top = place;
            }
            Err(error) => self.said = Some(error.to_string()),
        }
    }

    /// Begins to look for a text beside where one stands.
    pub fn search(&mut self, text: &str, direction: Direction) {
        self.searched = Some(text.to_owned());
        self.begin(Seek::from(self.selected, direction, Wanted::Text(text.to_owned())));
    }

    /// Begins to go on to where a condition comes true.
    pub fn until(&mut self, text: &str) {
        if self.track() == Track::Log {
            self.said = Some("a condition is of one instance: choose one with Enter".to_owned());
            return;
        }
        match Condition::parse(text) {
            Ok(wanted) => {
                self.begin(Seek::from(self.selected, Direction::Forward, Wanted::Condition(wanted)));
            }
            Err(error) => self.said = Some(error.to_string()),
        }
    }

    fn begin(&mut self, seek: Seek) {
        self.seek = Some((seek, self.selected));
    }

    /// Carries a search on by one slice. Answers whether there is more to do.
    pub fn work(&mut self) -> bool {
        let Some((mut seek, _)) = self.seek.take() else {
            return false;
        };
        match seek.slice(&mut self.events, &mut self.folds) {
            Ok(Found::Not(next)) => self.seek = Some((seek, next)),
            Ok(Found::At(place, why)) => {
                self.selected = place;
                self.said = Some(why).filter(|why| !why.is_empty());
                self.settle();
            }
            Ok(Found::Nowhere) => {
                self.said =
                    Some("nothing more is found on that side: n looks behind here, N before".to_owned());
            }
            Err(error) => self.said = Some(error.to_string()),
        }
        self.seek.is_some()
    }

    /// Turns the branch of the tree where one stands; `wanted` says how, or the other way round.
    pub fn turn_branch(&mut self, wanted: Option<bool>) {
        let Some(row) = self.tree.get(self.tree_at) else {
            return;
        };
        if let Some(is_open) = row.is_open
            && wanted.is_none_or(|wanted| wanted != is_open)
            && !self.turned.remove(&row.path)
        {
            self.turned.insert(row.path.clone());
        }
    }

    /// Goes to the next line of the tree that is marked, round and round.
    pub fn next_change(&mut self) {
        let is_marked = |row: &Row| !matches!(row.mark, tree::Mark::Same | tree::Mark::Within);
        let behind = self.tree.iter().enumerate().skip(self.tree_at + 1);
        let found = behind.chain(self.tree.iter().enumerate()).find(|(_, row)| is_marked(row));
        match found {
            Some((nth, _)) => self.tree_at = nth,
            None => self.said = Some("this event changed nothing".to_owned()),
        }
    }

    /// States held in memory.
    #[cfg(test)]
    pub fn states_held(&self) -> usize {
        self.folds.states_held()
    }

    /// Reads what the screen is to show.
    pub fn settle(&mut self) {
        let panes = view::panes(self.size);
        self.selected = self.selected.clamp(1, self.last().max(1));
        let height = u64::from(panes.list.height.max(1));
        let top_max = (self.last() + 1).saturating_sub(height).max(1);
        self.top =
            self.top.min(self.selected).max((self.selected + 1).saturating_sub(height)).clamp(1, top_max);
        self.rows.clear();
        for place in self.top..(self.top + height).min(self.last() + 1) {
            match self.events.get(place) {
                Ok(Some(listed)) => self.rows.push(listed.clone()),
                Ok(None) => break,
                Err(error) => {
                    self.said = Some(error.to_string());
                    break;
                }
            }
        }
        let of = (self.track(), self.selected);
        if self.detail.of != of {
            self.detail = self.look(of);
            (self.tree_at, self.scroll) = (0, 0);
        }
        let (before, after) = &self.detail.fields;
        self.tree = tree::rows(before, after, &self.turned, self.is_only_changes);
        self.tree_at = self.tree_at.min(self.tree.len().saturating_sub(1));
        if self.panel == Panel::Lanes {
            self.lanes = self.window(u64::from(panes.panel.height.saturating_sub(1)).max(1));
            let count = self.lanes.as_ref().map_or(0, |window| window.lanes.lanes.len());
            self.lane_first = self.lane_first.min(count.saturating_sub(1));
        }
    }

    fn look(&mut self, of: (Track, u64)) -> Detail {
        let listed = match self.events.get(of.1) {
            Ok(listed) => listed.cloned(),
            Err(error) => return Detail { trouble: Some(error.to_string()), ..Detail::nothing(of) },
        };
        let Some(listed) = listed else {
            return Detail { trouble: Some("the log is empty".to_owned()), ..Detail::nothing(of) };
        };
        let Some(stream) = listed.stream else {
            let trouble = Some("this build does not know this sort of stream".to_owned());
            return Detail { listed: Some(listed), trouble, ..Detail::nothing(of) };
        };
        let version = listed.hit.version;
        let both = self
            .folds
            .at(stream, version.saturating_sub(1))
            .and_then(|before| Ok((before, self.folds.at(stream, version)?)));
        match both {
            Ok((before, after)) => Detail {
                of,
                listed: Some(listed),
                fields: (before.fields(), after.fields()),
                before,
                after,
                trouble: None,
            },
            Err(error) => {
                Detail { listed: Some(listed), trouble: Some(error.to_string()), ..Detail::nothing(of) }
            }
        }
    }

    /// The lanes of as many events as there is room for, around the one where one stands.
    fn window(&mut self, height: u64) -> Result<LaneWindow, String> {
        let listed = self.detail.listed.as_ref();
        let Some((StreamName::Instance(id), version)) =
            listed.and_then(|listed| Some((listed.stream?, listed.hit.version)))
        else {
            return Err("lanes are of an instance: this event is of none".to_owned());
        };
        let mut from = version.saturating_sub(height / 2).max(1);
        if self.track() == Track::Instance(id) {
            from = from.min((self.last() + 1).saturating_sub(height).max(1));
        }
        let window = lane_window(self.source, &mut self.folds, id, (from, from + height - 1));
        window.map_err(|error| error.to_string())
    }
}

impl Detail {
    fn nothing(of: (Track, u64)) -> Self {
        Self {
            of,
            listed: None,
            before: Folded::Nothing,
            after: Folded::Nothing,
            fields: (Value::Null, Value::Null),
            trouble: None,
        }
    }
}
