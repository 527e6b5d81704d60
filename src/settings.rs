//! Where settings come from: what is compiled in, a file, the environment; and which of these has the word.

use crate::config::{Config, DEFAULTS, Overrides};
use anyhow::{anyhow, bail};
use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Toml};
use std::collections::BTreeMap;
use std::path::Path;
use strsim::levenshtein as letters_off;

/// Files that are read if no `--config` names one; the first that exists counts.
const FILES: [&str; 2] = ["./config/local.toml", "/etc/musher/config.toml"];

/// Everything but flags: the defaults, a file, the environment.
pub fn sources(file: Option<&Path>) -> anyhow::Result<Figment> {
    let mut figment = Figment::new().merge(Toml::string(DEFAULTS));
    if let Some(file) = file {
        if !file.is_file() {
            bail!("there is no configuration file {}", file.display());
        }
        figment = figment.merge(Toml::file_exact(file));
    } else if let Some(found) = FILES.iter().find(|path| Path::new(path).is_file()) {
        figment = figment.merge(Toml::file_exact(found));
    }
    // MUSHER_SERVER and MUSHER_TOKEN are the client's: only names with a section are settings.
    Ok(figment.merge(Env::prefixed("MUSHER_").filter(|key| key.as_str().contains("__")).split("__")))
}

/// Most letters that a name may be off to be suggested.
const LETTERS_OFF_MAX: usize = 3;

/// Everything that is wrong, with the name that was probably meant.
pub fn explained(error: figment::Error) -> anyhow::Error {
    let problems = error.into_iter().map(|problem| {
        let meant = match &problem.kind {
            Kind::UnknownField(name, known) => nearest(name, known),
            _ => None,
        };
        let meant = meant.map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default();
        format!("{problem}{meant}")
    });
    anyhow!("the configuration is not valid: {}", problems.collect::<Vec<_>>().join("; "))
}

/// The known name that is fewest letters off.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let off = known.iter().map(|known| (letters_off(name, known), *known));
    off.min().filter(|(off, _)| *off <= LETTERS_OFF_MAX).map(|(_, known)| known)
}

/// One setting, and where it comes from.
pub struct Setting {
    /// Section and name, such as `log.segment_bytes`.
    pub key: String,
    /// Its value.
    pub value: serde_json::Value,
    /// `default`, the file, or the environment variable.
    pub origin: String,
}

/// Every setting; refused if `serve` would refuse them.
pub fn settings(file: Option<&Path>) -> anyhow::Result<Vec<Setting>> {
    Config::load(file, &Overrides::default())?;
    let figment = sources(file)?;
    let sections: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        figment.extract().map_err(explained)?;
    let settings = sections.into_iter().flat_map(|(section, values)| {
        values.into_iter().flat_map(move |(name, value)| each_value(format!("{section}.{name}"), value))
    });
    Ok(settings.map(|(key, value)| Setting { origin: origin(&figment, &key), key, value }).collect())
}

/// The values of a section within a section, each by its whole name; of anything else itself.
fn each_value(key: String, value: serde_json::Value) -> Vec<(String, serde_json::Value)> {
    match value {
        serde_json::Value::Object(within) => {
            within.into_iter().map(|(name, value)| (format!("{key}.{name}"), value)).collect()
        }
        value => vec![(key, value)],
    }
}

fn origin(figment: &Figment, key: &str) -> String {
    let Some(metadata) = figment.find_metadata(key) else {
        return "default".to_owned();
    };
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(file) => file.display().to_string(),
        None if metadata.name.contains("environment") => {
            format!("MUSHER_{}", key.replace('.', "__").to_uppercase())
        }
        None => "default".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_says_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, "[log]\ncompact_every_s = 60\n").unwrap();
        let all = settings(Some(&file)).unwrap();
        let of = |key: &str| all.iter().find(|setting| setting.key == key).unwrap();
        assert_eq!(of("log.compact_every_s").value, 60);
        assert_eq!(of("log.compact_every_s").origin, file.display().to_string());
        assert_eq!(
            (of("sleds.calls_max").value.as_u64(), of("sleds.calls_max").origin.as_str()),
            (Some(32), "default")
        );
        assert!(settings(Some(&dir.path().join("none.toml"))).is_err());
    }

    #[test]
    fn the_name_that_was_meant_is_suggested() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        for (text, meant) in [
            ("[log]\nsegment_byte = 5\n", Some("segment_bytes")),
            ("[slds]\ncalls_max = 5\n", Some("sleds")),
            ("[log]\ncolour_of_the_lines = 5\n", None),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = Config::load(Some(&file), &Overrides::default()).unwrap_err().to_string();
            let suggestion = error.split("did you mean \"").nth(1).and_then(|rest| rest.split('"').next());
            assert_eq!(suggestion, meant, "{error}");
        }
        for (from, to, off) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(letters_off(from, to), off, "{from} {to}");
        }
    }
}
