//! Transcript tests (golden scripts): commands and their expected output, side by side in readable files.
//!
//! The files are goldenscripts (see the `goldenscript` crate for the whole syntax): blocks of commands, `---`, the
//! output, a blank line; `#` begins a comment. A command is a name with arguments (`put a`, `put a context=alice`), a
//! prefix before it (`n1: put a`) is repeated before its output, `(put a)` hides the output, `n1: !put a` must fail.
//!
//! To test a module with them:
//!
//! 1. Implement [`Script`] for a struct that holds the state of one file: its table of [`Verb`]s, and the events since the
//!    last command. A cluster provides most verbs ([`crate::verbs`]).
//! 2. Write files, initially without output, in a folder of the module.
//! 3. Call [`run`] from a `#[test]`. Each file starts with a new state.
//! 4. `UPDATE_TRANSCRIPTS=1 cargo test transcripts` writes the output into the files. Review the difference before committing
//!    it: the test requires this output from then on.
//!
//! The error for an unknown command lists the verbs with their descriptions; so does the command `help`.

use std::error::Error;
use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Command, Context, Runner};

/// The result of a command: its output.
pub type Outcome = Result<String, Box<dyn Error>>;

/// A command of transcripts.
pub struct Verb<S> {
    /// The command's name.
    pub name: &'static str,
    /// Its arguments, for the help.
    pub usage: &'static str,
    /// Its description.
    pub meaning: &'static str,
    /// Its implementation.
    pub run: fn(&mut S, &mut Call<'_>) -> Outcome,
}

/// The state of one file of commands.
pub trait Script: Default {
    /// The commands without a prefix. Of two with one name the first is used.
    fn verbs() -> Vec<Verb<Self>>;

    /// The commands with a prefix, which names the client: `n1: put a`.
    fn client_verbs() -> Vec<Verb<Self>> {
        Vec::new()
    }

    /// The events since the last command, one per line; `verb` was just performed.
    fn happened(&mut self, _verb: &str) -> Vec<String> {
        Vec::new()
    }
}

/// A command with its arguments. Each method consumes what it returns; unconsumed arguments are an error.
pub struct Call<'a> {
    /// The command's name.
    pub verb: &'a str,
    /// Its prefix: `n1`.
    pub prefix: &'a str,
    arguments: ArgumentConsumer<'a>,
}

impl<'a> Call<'a> {
    /// The next argument without a name.
    pub fn word(&mut self) -> Option<&'a str> {
        self.arguments.next_pos()
    }

    /// The next argument without a name, which is required; `what` describes it.
    ///
    /// # Errors
    /// If it is missing.
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

    /// The value of the argument of this name, parsed.
    ///
    /// # Errors
    /// If it cannot be parsed.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, Box<dyn Error>> {
        self.key(name).map(|text| parsed_as(name, text)).transpose()
    }

    /// The argument of this name as a duration, or this many milliseconds.
    ///
    /// # Errors
    /// If it is not a duration.
    pub fn time(&mut self, name: &str, default_ms: u64) -> Result<Duration, Box<dyn Error>> {
        self.key(name)
            .map_or(Ok(Duration::from_millis(default_ms)), duration)
    }

    /// The next argument without a name as a duration.
    ///
    /// # Errors
    /// If it is missing or invalid.
    pub fn duration(&mut self) -> Result<Duration, Box<dyn Error>> {
        duration(self.required("a duration")?)
    }

    /// The node of the prefix.
    ///
    /// # Errors
    /// If there is no such node.
    pub fn client<N: FromStr<Err: Display>>(&self) -> Result<N, Box<dyn Error>> {
        parsed_as("the node", self.prefix)
    }

    /// The next argument without a name as that of a node.
    ///
    /// # Errors
    /// If it is missing or invalid.
    pub fn node<N: FromStr<Err: Display>>(&mut self) -> Result<N, Box<dyn Error>> {
        parsed_as("a node", self.required("a node")?)
    }

    /// Two nodes, if given.
    ///
    /// # Errors
    /// If only one is given, or a name is invalid.
    pub fn pair<N: FromStr<Err: Display>>(&mut self) -> Result<Option<(N, N)>, Box<dyn Error>> {
        let Some(from) = self.word() else {
            return Ok(None);
        };
        Ok(Some((parsed_as("a node", from)?, self.node()?)))
    }
}

fn parsed_as<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, Box<dyn Error>> {
    text.parse()
        .map_err(|error| format!("{what}: cannot parse {text:?}: {error}").into())
}

/// A duration: `50us`, `10ms` or `2s`.
///
/// # Errors
/// If it is invalid.
pub fn duration(text: &str) -> Result<Duration, Box<dyn Error>> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = parsed_as("a duration", number)?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(format!("{text:?} is not a duration: write 50us, 10ms or 2s").into()),
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

/// The verbs and their descriptions.
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

/// Runs all files of a folder (`*.txt`), each with its own script.
///
/// # Panics
/// If a file's output differs, a command fails unexpectedly, or there are no files; names all such files.
pub fn run<S: Script>(folder: impl AsRef<Path>) {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some_and(|value| value == "1");
    run_or_update(folder.as_ref(), Play::<S>::new, update);
}

fn run_or_update<R: Runner>(folder: &Path, new_runner: impl Fn() -> R, update: bool) {
    let files = transcripts_in(folder);
    assert!(!files.is_empty(), "no *.txt in {}", folder.display());
    let mut failures = Vec::new();
    for path in files {
        // Printed for panics of the runner, which do not name the file.
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

/// The first different line, with a few lines of both.
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
