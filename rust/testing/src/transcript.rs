//! Transcript tests: commands and the output they must give, side by side in files that a person can read. (Others call them
//! golden scripts.)
//!
//! The files are goldenscripts (see the `goldenscript` crate for the whole syntax): blocks of commands, `---`, the
//! output, a blank line; `#` begins a comment. A command is a name with arguments (`put a`, `put a context=alice`), a
//! prefix before it (`n1: put a`) is repeated before its output, `(put a)` hides the output, `n1: !put a` must fail.
//!
//! To test a module with them:
//!
//! 1. Implement [`Script`] for a struct that holds the state of one file: its table of [`Verb`]s, and what has happened since
//!    the last command. A cluster brings most verbs along ([`crate::verbs`]).
//! 2. Write files, without output at first, into a folder, one for the module.
//! 3. Call [`run`] from a `#[test]`. Each file begins with a new state.
//! 4. `UPDATE_TRANSCRIPTS=1 cargo test transcripts` writes the output into the files. Read the difference before committing
//!    it: what is in the file is what the test demands from then on.
//!
//! When a command is not known, the error lists the verbs with what they do; `help` in a file does, too.

use std::error::Error;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Command, Context, Runner};

/// What a command comes to: its output.
pub type Outcome = Result<String, Box<dyn Error>>;

/// A command that transcripts can have.
pub struct Verb<S> {
    /// The command's name.
    pub name: &'static str,
    /// Its arguments, as a reader should know them.
    pub usage: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// Does it.
    pub run: fn(&mut S, &mut Call<'_>) -> Outcome,
}

/// What one file of commands plays with.
pub trait Script: Default {
    /// The commands without a prefix. Of two with one name the first counts.
    fn verbs() -> Vec<Verb<Self>>;

    /// The commands with a prefix, which says whose they are: `n1: put a`.
    fn client_verbs() -> Vec<Verb<Self>> {
        Vec::new()
    }

    /// What has happened since the last command, a line each; `verb` is the one that was just performed.
    fn happened(&mut self, _verb: &str) -> Vec<String> {
        Vec::new()
    }
}

/// A command with its arguments. Each method takes out what it returns; what is left in the end is an error.
pub struct Call<'a> {
    /// The command's name.
    pub verb: &'a str,
    /// What stands before it: `n1`.
    pub prefix: &'a str,
    arguments: ArgumentConsumer<'a>,
}

impl<'a> Call<'a> {
    /// The next argument without a name.
    pub fn word(&mut self) -> Option<&'a str> {
        self.arguments.next_pos()
    }

    /// The next argument without a name, which must be there: `what` is missing if not.
    ///
    /// # Errors
    /// It is not there.
    pub fn required(&mut self, what: &str) -> Result<&'a str, Box<dyn Error>> {
        let verb = self.verb;
        self.word()
            .ok_or_else(|| format!("{verb}: {what} is missing").into())
    }

    /// All arguments without a name.
    pub fn rest(&mut self) -> Vec<&'a str> {
        std::iter::from_fn(|| self.word()).collect()
    }

    /// The next argument with a name.
    pub fn next_key(&mut self) -> Option<(&'a str, &'a str)> {
        self.arguments.next_key()
    }

    /// The value of the argument of this name.
    pub fn key(&mut self, name: &str) -> Option<&'a str> {
        self.arguments.take_key(name)
    }

    /// The same, understood.
    ///
    /// # Errors
    /// It is there and cannot be understood.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, Box<dyn Error>> {
        self.key(name).map(|text| understood(name, text)).transpose()
    }

    /// The argument of this name as a duration, or this many milliseconds.
    ///
    /// # Errors
    /// It is no duration.
    pub fn time(&mut self, name: &str, default_ms: u64) -> Result<Duration, Box<dyn Error>> {
        self.key(name)
            .map_or(Ok(Duration::from_millis(default_ms)), duration)
    }

    /// The next argument without a name as a duration.
    ///
    /// # Errors
    /// It is none, or is missing.
    pub fn duration(&mut self) -> Result<Duration, Box<dyn Error>> {
        duration(self.required("a duration")?)
    }

    /// The node before the command.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn client<N: FromStr<Err: Display>>(&self) -> Result<N, Box<dyn Error>> {
        understood("the node", self.prefix)
    }

    /// The next argument without a name as that of a node.
    ///
    /// # Errors
    /// It is none, or is missing.
    pub fn node<N: FromStr<Err: Display>>(&mut self) -> Result<N, Box<dyn Error>> {
        understood("a node", self.required("a node")?)
    }

    /// Two nodes, if any are named.
    ///
    /// # Errors
    /// One is named, or a name is none.
    pub fn pair<N: FromStr<Err: Display>>(&mut self) -> Result<Option<(N, N)>, Box<dyn Error>> {
        let Some(from) = self.word() else {
            return Ok(None);
        };
        Ok(Some((understood("a node", from)?, self.node()?)))
    }
}

fn understood<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, Box<dyn Error>> {
    text.parse()
        .map_err(|error| format!("{what}: {text:?} is not understood: {error}").into())
}

/// A duration: `50us`, `10ms` or `2s`.
///
/// # Errors
/// It is none.
pub fn duration(text: &str) -> Result<Duration, Box<dyn Error>> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = understood("a duration", number)?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(format!("{text:?} is no duration: write 50us, 10ms or 2s").into()),
    }
}

// ---- running ----

/// A script with its verbs.
struct Play<S> {
    script: S,
    verbs: Vec<Verb<S>>,
    client_verbs: Vec<Verb<S>>,
}

impl<S: Script> Play<S> {
    fn new() -> Self {
        Play {
            script: S::default(),
            verbs: S::verbs(),
            client_verbs: S::client_verbs(),
        }
    }
}

impl<S: Script> Runner for Play<S> {
    type Command = Command;

    fn run(&mut self, command: &Command, context: &Context) -> Outcome {
        let verbs = match context.prefix {
            Some(_) => &self.client_verbs,
            None => &self.verbs,
        };
        let name = command.name.as_str();
        let help = || Help(&self.verbs, &self.client_verbs);
        if name == "help" {
            return Ok(help().to_string());
        }
        let verb = verbs.iter().find(|verb| verb.name == name);
        let verb = verb.ok_or_else(|| format!("there is no command {command}; there are\n{}", help()))?;
        let mut call = Call {
            verb: name,
            prefix: context.prefix.as_deref().unwrap_or_default(),
            arguments: command.consume_args(),
        };
        let output = (verb.run)(&mut self.script, &mut call)?;
        call.arguments.reject_next()?;
        let mut lines = self.script.happened(name);
        if !output.is_empty() {
            lines.push(output);
        }
        Ok(lines.join("\n"))
    }
}

/// The verbs and what they do.
struct Help<'a, S>(&'a [Verb<S>], &'a [Verb<S>]);

impl<S> Display for Help<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (prefix, verbs) in [("n1: ", self.1), ("", self.0)] {
            for (place, verb) in verbs.iter().enumerate() {
                if verbs[..place].iter().any(|earlier| earlier.name == verb.name) {
                    continue;
                }
                let command = format!("{prefix}{} {}", verb.name, verb.usage);
                writeln!(f, "{:<60} {}", command.trim_end(), verb.meaning)?;
            }
        }
        Ok(())
    }
}

/// Runs all files of a folder (`*.txt`), each with a script of its own.
///
/// # Panics
/// If a file's output differs, a command fails that was not expected to, or there are no files; names all such files.
pub fn run<S: Script>(folder: impl AsRef<Path>) {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some_and(|value| value == "1");
    run_or_update(folder.as_ref(), Play::<S>::new, update);
}

fn run_or_update<R: Runner>(folder: &Path, new_runner: impl Fn() -> R, update: bool) {
    let files = transcripts_in(folder);
    assert!(!files.is_empty(), "no *.txt in {}", folder.display());
    let mut failures = Vec::new();
    for path in files {
        // Shown when the runner panics, since the panic does not know the file.
        println!("transcript {}", path.display());
        let script = fs::read_to_string(&path).expect("the transcript is readable");
        match goldenscript::generate(&mut new_runner(), &script) {
            Err(error) => failures.push(format!("{}: {error}", path.display())),
            Ok(output) if output == script => {}
            Ok(output) if update => fs::write(&path, output).expect("the transcript is writable"),
            Ok(output) => failures.push(format!("{}: {}", path.display(), difference(&script, &output))),
        }
    }
    assert!(
        failures.is_empty(),
        "{}\n\nIf the new output is right, run again with UPDATE_TRANSCRIPTS=1 and review the difference.",
        failures.join("\n\n")
    );
}

fn transcripts_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    files
}

/// The first line at which the two differ, with a few lines of each.
fn difference(expected: &str, actual: &str) -> String {
    let same = expected
        .lines()
        .zip(actual.lines())
        .take_while(|(expected, actual)| expected == actual)
        .count();
    let excerpt = |text: &str, mark: &str| -> String {
        text.lines()
            .skip(same)
            .take(5)
            .map(|line| format!("\n{mark} {line}"))
            .collect()
    };
    format!(
        "line {} differs{}{}",
        same + 1,
        excerpt(expected, "expected"),
        excerpt(actual, "actual  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_different_line_is_named_with_both_sides() {
        let shown = difference("a\nb\nc\n", "a\nx\nc\n");
        assert_eq!(
            shown,
            "line 2 differs\nexpected b\nexpected c\nactual   x\nactual   c"
        );
        assert_eq!(difference("a\n", "a\nb\n"), "line 2 differs\nactual   b");
    }

    #[derive(Default)]
    struct Echo(Vec<String>);

    impl Script for Echo {
        fn verbs() -> Vec<Verb<Self>> {
            let echo = |script: &mut Echo, call: &mut Call<'_>| {
                script.0.push(format!("{} said", call.verb));
                Ok(call.rest().join(" "))
            };
            vec![Verb {
                name: "echo",
                usage: "WORDS",
                meaning: "the words again",
                run: echo,
            }]
        }

        fn happened(&mut self, _verb: &str) -> Vec<String> {
            std::mem::take(&mut self.0)
        }
    }

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/transcripts")
            .join(name)
    }

    #[test]
    fn verbs_give_their_output_behind_what_has_happened() {
        run::<Echo>(folder("right"));
    }

    #[test]
    #[should_panic(expected = "no_such_folder")]
    fn a_missing_folder_is_not_a_passing_test() {
        run::<Echo>(folder("no_such_folder"));
    }

    #[test]
    #[should_panic(expected = "wrong.txt: line 4 differs")]
    fn a_wrong_output_fails() {
        run_or_update(&folder("wrong"), Play::<Echo>::new, false);
    }

    #[test]
    #[should_panic(expected = "there is no command ecko a; there are\necho WORDS")]
    fn an_unknown_command_fails_and_names_those_that_there_are() {
        run_or_update(&folder("unknown"), Play::<Echo>::new, false);
    }
}
