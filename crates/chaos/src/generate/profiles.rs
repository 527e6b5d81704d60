//! Profiles: what a campaign lets happen, as files.
//!
//! Those of `config/chaos` are compiled in and known by their names; any other file is read from where it is. Both
//! come through one parser, so that what is shipped is also what can be copied and changed.

use crate::faults::Fault;
use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde::Deserialize;
use std::path::Path;
use std::sync::LazyLock;

/// Largest profile file, bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// How many letters off a name may be to be what was probably meant.
const LETTERS_OFF_MAX: usize = 3;

/// What a profile lets happen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name: that of its file.
    #[serde(skip)]
    pub name: String,
    /// Whether it is compiled in: only then minima of coverage are asked of it.
    #[serde(skip)]
    pub is_built_in: bool,
    /// What it is for.
    pub about: String,
    /// Kinds of fault that it may switch on.
    pub kinds: Vec<String>,
    /// How many in a hundred seeds switch each kind on.
    pub chance: u64,
    /// How many in a hundred requests of an instance ask to migrate it.
    pub moves: u64,
    /// Whether sleds are too small for what is asked.
    pub scarce: bool,
    /// How many in a hundred seeds give their sleds a lease; actors tier only.
    #[serde(default)]
    pub leases: u64,
    /// How many in a hundred seeds let idle instances leave memory; actors tier only.
    #[serde(default)]
    pub passivation: u64,
    /// Whether every run fails, to show that failures are reported.
    #[serde(default)]
    pub fails: bool,
}

/// Why there is no such profile.
#[derive(Debug, thiserror::Error)]
pub enum NoProfile {
    /// None of this name is compiled in.
    #[error(
        "no profile is called \"{name}\"{hint}; there are {known}, or name a .toml file like those of config/chaos"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        hint: String,
        /// All there are.
        known: String,
    },
    /// The file cannot be read.
    #[error("the profile {path} cannot be read: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// It says something that no profile can say.
    #[error("the profile {path} is not valid: {why}")]
    Invalid {
        /// The file, or the name.
        path: String,
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// The files that are compiled in; the first is the default.
const FILES: [(&str, &str); 9] = [
    ("swarm", include_str!("../../../../config/chaos/swarm.toml")),
    ("crash", include_str!("../../../../config/chaos/crash.toml")),
    ("network", include_str!("../../../../config/chaos/network.toml")),
    ("reboots", include_str!("../../../../config/chaos/reboots.toml")),
    ("migrations", include_str!("../../../../config/chaos/migrations.toml")),
    ("scarce", include_str!("../../../../config/chaos/scarce.toml")),
    ("actors", include_str!("../../../../config/chaos/actors.toml")),
    ("calm", include_str!("../../../../config/chaos/calm.toml")),
    ("canary", include_str!("../../../../config/chaos/canary.toml")),
];

/// The profile that the core tier runs unless told otherwise.
pub const CORE_PROFILE: &str = FILES[0].0;

/// The profile that the actors tier runs unless told otherwise.
pub const ACTORS_PROFILE: &str = "actors";

/// The profiles that are compiled in; the first is the default.
pub static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let parsed = FILES.iter().map(|(name, text)| {
        let profile = Profile::parse(name, text).expect("a test reads every file that is compiled in");
        Profile { is_built_in: true, ..profile }
    });
    parsed.collect()
});

/// The profile of a name that is compiled in.
pub fn profile(name: &str) -> Option<&'static Profile> {
    PROFILES.iter().find(|profile| profile.name == name)
}

impl Profile {
    /// The profile of a name, or of a file: what ends in `.toml` or holds a slash is a file.
    pub fn find(name: &str) -> Result<Self, NoProfile> {
        let path = Path::new(name);
        if path.extension().is_some_and(|extension| extension == "toml") || name.contains('/') {
            return Self::read(path);
        }
        profile(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = PROFILES.iter().map(|profile| profile.name.as_str()).collect();
            NoProfile::Unknown { name: name.to_owned(), hint: hint(name, &known), known: known.join(", ") }
        })
    }

    fn read(path: &Path) -> Result<Self, NoProfile> {
        let unreadable = |why: String| NoProfile::Unreadable { path: path.display().to_string(), why };
        let bytes = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(unreadable(format!("it has {bytes} bytes; no profile has")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Self::parse(&name, &text).map_err(|error| match error {
            NoProfile::Invalid { why, .. } => NoProfile::Invalid { path: path.display().to_string(), why },
            error => error,
        })
    }

    /// The profile that a text describes.
    pub fn parse(name: &str, text: &str) -> Result<Self, NoProfile> {
        let invalid = |why: String| NoProfile::Invalid { path: name.to_owned(), why };
        let read: Self =
            Figment::from(Toml::string(text)).extract().map_err(|error| invalid(said(&error)))?;
        let percents = [
            ("chance", read.chance),
            ("moves", read.moves),
            ("leases", read.leases),
            ("passivation", read.passivation),
        ];
        if let Some((key, value)) = percents.into_iter().find(|(_, value)| *value > 100) {
            return Err(invalid(format!("{key} is {value}; it is so many in a hundred")));
        }
        for kind in &read.kinds {
            if !Fault::KINDS.contains(&kind.as_str()) {
                let hint = hint(kind, &Fault::KINDS);
                return Err(invalid(format!(
                    "no fault is called \"{kind}\"{hint}; `musher chaos list` names them"
                )));
            }
        }
        Ok(Self { name: name.to_owned(), ..read })
    }

    /// Whether it may switch this kind on.
    pub fn has(&self, kind: &str) -> bool {
        self.kinds.iter().any(|known| known == kind)
    }
}

/// What is wrong, in one line.
fn said(error: &figment::Error) -> String {
    const KEYS: [&str; 8] = ["about", "kinds", "chance", "moves", "scarce", "leases", "passivation", "fails"];
    match &error.kind {
        figment::error::Kind::UnknownField(key, _) => {
            format!("no key is called \"{key}\"{}; there are {}", hint(key, &KEYS), KEYS.join(", "))
        }
        _ => error.to_string(),
    }
}

/// What was probably meant.
fn hint(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|known| (strsim::levenshtein(name, known), known)).min();
    match nearest {
        Some((off, known)) if off <= LETTERS_OFF_MAX => format!(" (did you mean \"{known}\"?)"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_directory_is_compiled_in_and_reads_the_same_from_there() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/chaos");
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let from_file = Profile::find(path.to_str().unwrap()).unwrap();
            let built_in = profile(&from_file.name).unwrap();
            assert_eq!(Profile { is_built_in: true, ..from_file }, *built_in);
            names.push(built_in.name.clone());
        }
        assert_eq!(names.len(), FILES.len());
    }

    #[test]
    fn the_swarm_has_every_fault_of_its_tier_and_all_faults_have_a_profile() {
        let swarm = profile(CORE_PROFILE).unwrap();
        assert!(Fault::core_kinds().all(|kind| swarm.has(kind)));
        let actors = profile(ACTORS_PROFILE).unwrap();
        assert!(Fault::KINDS.iter().all(|kind| swarm.has(kind) || actors.has(kind)));
    }

    #[test]
    fn what_is_wrong_with_a_profile_is_said_with_what_was_meant() {
        let good = "about = \"x\"\nkinds = [\"drop\"]\nchance = 1\nmoves = 1\nscarce = false\n";
        assert!(Profile::parse("mine", good).is_ok());
        for (text, says) in [
            (good.replace("\"drop\"", "\"dorp\""), "did you mean \"drop\"?"),
            (good.replace("chance = 1", "chance = 101"), "in a hundred"),
            (good.replace("moves = 1", "movse = 1"), "did you mean \"moves\"?"),
            (good.replace("scarce = false", ""), "scarce"),
            (good.replace("chance = 1", "chance = -1"), "chance"),
            ("kinds = [".to_owned(), "mine"),
        ] {
            let error = Profile::parse("mine", &text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(Profile::find("swram").unwrap_err().to_string().contains("did you mean \"swarm\"?"));
        assert!(Profile::find("/nowhere/x.toml").unwrap_err().to_string().contains("cannot be read"));
    }
}
