//! Settings from flags, a TOML file and a preset, and the resolved settings written back.
//!
//! A configuration file is read as the flags that it stands for (`sites = 40` is `--sites=40`), so files and flags
//! have one parser, one set of names and one set of messages. A flag wins over the file, the file over the preset.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use serde::Serialize;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use toml::{Table, Value};
use vi4dvar::error::{Error, Result};
use vi4dvar::model::Model;

/// Flags that mean nothing inside a file.
const FLAGS_ONLY: [&str; 4] = ["config", "help", "resume", "version"];

/// Most bytes of a configuration file: what is longer is something else, or has no end.
const LONGEST: u64 = 1 << 20;

/// The settings of one run, as far as given: what the flags say, and what the file says.
pub(super) struct Given {
    flags: ArgMatches,
    file: Option<ArgMatches>,
}

impl Given {
    /// Reads the file named by `--config`, where there is one. Keys of other subcommands are passed over, so one file
    /// serves them all; keys of none are refused.
    pub(super) fn new<T: Args>(flags: &ArgMatches) -> Result<Self> {
        let file = match flags.get_one::<std::path::PathBuf>("config") {
            None => None,
            Some(path) => Some(read::<T>(path, !matches!(flags.try_get_one("quiet"), Ok(Some(true))))?),
        };
        Ok(Self { flags: flags.clone(), file })
    }

    /// The text of a flag, or else of the file's key.
    pub(super) fn text(&self, id: &str) -> Option<&String> {
        self.flags.get_one(id).or_else(|| self.file.as_ref().and_then(|file| file.get_one(id)))
    }

    /// The model, where a flag or the file gives one.
    pub(super) fn model(&self) -> Option<Model> {
        let of = |matches: &ArgMatches| matches.get_one("model").copied();
        of(&self.flags).or_else(|| self.file.as_ref().and_then(of))
    }

    /// Whether a flag or the file gives it.
    pub(super) fn has(&self, id: &str) -> bool {
        let given = |matches: &ArgMatches| matches.value_source(id) == Some(ValueSource::CommandLine);
        given(&self.flags) || self.file.as_ref().is_some_and(given)
    }

    /// Whether the command line gives the flag of that name.
    pub(super) fn has_flag(&self, name: &str) -> bool {
        self.flags.value_source(&name.replace('-', "_")) == Some(ValueSource::CommandLine)
    }

    /// `base` with the file laid over it, and the flags over that.
    pub(super) fn over<T: FromArgMatches>(self, mut base: T) -> T {
        for matches in self.file.iter().chain([&self.flags]) {
            base.update_from_arg_matches(matches).unwrap_or_else(|error| error.exit());
        }
        base
    }
}

/// The matches of the flags that the file stands for. Keys that stand for none here may be told of.
fn read<T: Args>(path: &Path, tell: bool) -> Result<ArgMatches> {
    let help = "a configuration holds `flag = value` lines, with the flags' names";
    let unreadable = |error| Error::file(path, format!("cannot be read: {error}"), "check the path");
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(LONGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        let message = format!("expected a configuration of at most {LONGEST} bytes, found more");
        return Err(Error::file(path, message, help));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::file(path, "expected a configuration in TOML, found no text (UTF-8)", help))?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        Error::file(path, format!("line {line}: not TOML: {}", error.message().trim_end()), help)
    })?;
    fn names(command: &Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(|a| a.get_long()).map(String::from);
        own.chain(command.get_subcommands().flat_map(names)).collect()
    }
    let mut known: Vec<_> = super::command().get_subcommands().flat_map(names).collect();
    known.retain(|name| !FLAGS_ONLY.contains(&name.as_str()));
    let command = T::augment_args_for_update(Command::new("config").no_binary_name(true));
    let mine = names(&command);
    let (mut flags, mut others) = (Vec::new(), Vec::new());
    for (key, value) in &table {
        if !known.contains(key) {
            let near = |name: &&String| strsim::jaro_winkler(name, key);
            let closest = known.iter().max_by(|a, b| near(a).total_cmp(&near(b))).expect("there are flags");
            let help = if FLAGS_ONLY.contains(&key.as_str()) {
                "it means something on the command line alone".into()
            } else if near(&closest) > 0.8 {
                format!("the closest known one is `{closest}`")
            } else {
                "the flags' names are known: see --help".into()
            };
            return Err(Error::file(path, format!("unknown key `{key}`"), help));
        }
        if mine.contains(key) {
            let Some(value) = flag_value(value) else {
                return Err(Error::file(path, format!("key `{key}` holds a table or a date"), help));
            };
            flags.push(format!("--{key}={value}"));
        } else {
            others.push(key.as_str());
        }
    }
    if tell && !others.is_empty() {
        let more = if others.len() > 5 { ", ..." } else { "" };
        others.truncate(5);
        eprintln!("note: {} has keys of other commands, passed over: {}{more}", path.display(), others.join(", "));
    }
    command.try_get_matches_from(flags).map_err(|error| {
        let message = super::in_words(&error.render().to_string());
        let first = message.lines().next().unwrap_or_default();
        Error::file(path, first.trim_start_matches("error: "), "correct the value")
    })
}

/// The value as it would stand behind a flag; lists are joined by commas, and so are the `name=value` of a table.
fn flag_value(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(yes) => Some(yes.to_string()),
        Value::Array(values) => Some(values.iter().map(flag_value).collect::<Option<Vec<_>>>()?.join(",")),
        Value::Table(table) if !table.is_empty() => {
            let pair = |(name, value): (&String, &Value)| Some(format!("{name}={}", flag_value(value)?));
            Some(table.iter().map(pair).collect::<Option<Vec<_>>>()?.join(","))
        }
        Value::Table(_) | Value::Datetime(_) => None,
    }
}

/// The command with the defaults that its help states replaced by those of `settings`, where they have the flag.
pub(super) fn with_defaults(command: Command, settings: &impl Serialize) -> Command {
    let table = Table::try_from(settings).expect("settings are plain numbers and names");
    command.mut_args(|arg| {
        let value = arg.get_long().and_then(|name| table.get(name)).and_then(flag_value);
        let long = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string);
        match (value, long.as_deref().and_then(|help| help.split_once("Default: "))) {
            (Some(value), Some((what, _))) => {
                let help = format!("{what}Default: {value}");
                arg.help(help.clone()).long_help(help)
            }
            _ => arg,
        }
    })
}

/// The resolved settings as a configuration file that repeats the run.
pub(super) fn resolved(subcommand: &str, settings: &impl Serialize) -> String {
    let body = toml::to_string(settings).expect("settings are plain numbers and names");
    let mut text = format!("# Every setting of this run. `vi4dvar {subcommand} --config THIS_FILE` repeats it.\n");
    for line in body.lines() {
        // TOML's integers have a sign: a larger seed is written as text, which reads back as the same flag.
        match line.split_once(" = ") {
            Some((key, value)) if value.parse::<u64>().is_ok_and(|v| i64::try_from(v).is_err()) => {
                text.push_str(&format!("{key} = \"{value}\"\n"));
            }
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    text
}
