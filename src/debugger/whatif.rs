//! `replay --with BINARY` and `--with-config FILE`: the same history by other rules, or under other limits.

use super::past::Past;
use super::{progress, show};
use crate::config::{Config, Overrides};
use crate::environment::policy;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Format};
use crate::serve::BUILD;
use lifecycle::{InstanceId, Policy};
use replay::whatif::{
    Answer, Decided, Difference, HELLO_BYTES_MAX, Hello, Host, LINE_BYTES_MAX, PROTOCOL, Question, Rules,
    RulesError, Side, Then, Under, WhatIf, WhatIfError, compare,
};
use std::io::{BufRead as _, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// The hidden command that answers.
pub const COMMAND: &str = "rules";
/// Longest wait for a greeting: a process starts in milliseconds.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// Longest wait for an answer: a question holds no more than a few hundred decisions.
const ANSWER_MAX: Duration = Duration::from_mins(1);
/// Bytes kept of what the other build says on stderr.
const SAID_BYTES_MAX: u64 = 1_024;

/// Compares with another build.
pub async fn with_binary(
    past: &Past,
    instance: Option<InstanceId>,
    binary: &Path,
    format: Format,
) -> Outcome {
    let mut other = Other::start(binary).await?;
    let theirs = other.build.clone();
    let (mut host, under) = (Host::default(), Under::Recorded(Policy::default()));
    let compared = compare(
        past.source(),
        instance,
        Side { rules: &mut host, under },
        Side { rules: &mut other, under },
        &mut progress("compared"),
    );
    other.stop().await;
    answer(past, compared, &format!("this build ({BUILD})"), &format!("that build ({theirs})"), format)
}

/// Compares with other limits.
pub fn with_config(past: &Past, instance: Option<InstanceId>, file: &Path, format: Format) -> Outcome {
    let config = Config::load(Some(file), &Overrides::default())
        .map_err(|error| Failure::new(Exit::Usage, format!("{error:#}")))?;
    let (mut ours, mut theirs) = (Host::default(), Host::default());
    let compared = compare(
        past.source(),
        instance,
        Side { rules: &mut ours, under: Under::Recorded(Policy::default()) },
        Side { rules: &mut theirs, under: Under::Fixed(policy(&config)) },
        &mut progress("compared"),
    );
    answer(past, compared, "as it was", &format!("with {}", file.display()), format)
}

fn answer(
    past: &Past,
    compared: Result<WhatIf, WhatIfError>,
    ours: &str,
    theirs: &str,
    format: Format,
) -> Outcome {
    let found = compared.map_err(|error| match error {
        WhatIfError::Log(error) => past.failure(error),
        WhatIfError::Rules(error) => Failure::new(Exit::Refused, error.to_string())
            .hint("run the other build's `replay --verify` on the same history to see why"),
    })?;
    let count = found.differences.len() as u64 + found.differences_dropped;
    if !output::structured(format, &found) {
        for difference in &found.differences {
            tell(difference, ours, theirs);
        }
        if found.differences_dropped > 0 {
            output::line(format!("and {} more", found.differences_dropped));
        }
        output::line(format!(
            "{} appends of {} instance(s) compared; {count} differ",
            found.appends, found.instances
        ));
    }
    if count == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Refused, format!("{count} instance(s) would have gone another way")))
}

fn tell(difference: &Difference, ours: &str, theirs: &str) {
    let Difference { name, instance, version, position, time, .. } = difference;
    output::line(format!("{name} ({instance}) #{version} (position {position}, {time})"));
    output::line(format!("  input       {}", difference.input));
    if difference.ours.decided != difference.theirs.decided {
        decided(ours, &difference.ours.decided);
        decided(theirs, &difference.theirs.decided);
    }
    if difference.ours.then != difference.theirs.then {
        output::line("  the recorded events lead to");
        for (whose, Answer { then, .. }) in [(ours, &difference.ours), (theirs, &difference.theirs)] {
            output::line(format!("    {whose}: {}", then_text(then)));
        }
    }
}

fn decided(whose: &str, decided: &Decided) {
    let events = match decided {
        Decided::Events(events) if !events.is_empty() => events,
        other => {
            let text = match other {
                Decided::NoInput => "no input was kept".to_owned(),
                Decided::Events(_) => "nothing".to_owned(),
                Decided::Refused(why) => format!("refused: {why}"),
                Decided::AsksForRoom => "asks for room".to_owned(),
                Decided::Unreadable(why) => format!("cannot read the input: {why}"),
                Decided::GivesUp(why) => format!("gives up: {why}"),
            };
            return output::line(format!("  {whose} decides: {text}"));
        }
    };
    output::line(format!("  {whose} decides"));
    for event in events {
        output::line(format!("    {event}"));
    }
}

fn then_text(then: &Then) -> String {
    match then {
        Then::CannotFollow(why) => format!("nowhere: {why}"),
        Then::State { run_state, effects } => {
            let effects: Vec<String> = effects.iter().map(show::plain).collect();
            format!(
                "{run_state}, to be sent: {}",
                if effects.is_empty() { "nothing".to_owned() } else { effects.join(" ") }
            )
        }
    }
}

/// Another build, as a process of its own.
struct Other {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    build: String,
}

impl Other {
    /// Starts it and waits for its greeting.
    async fn start(binary: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(binary);
        command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(|error| {
            Failure::new(Exit::Refused, format!("{} cannot be run: {error}", binary.display()))
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked for");
        };
        let mut stdout = BufReader::new(stdout);
        let greeting = timeout(HELLO_MAX, line(&mut stdout, HELLO_BYTES_MAX)).await;
        let hello = match &greeting {
            Ok(Ok(greeting)) => serde_json::from_slice::<Hello>(greeting).ok(),
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(hello) = hello else {
            // What keeps its end open would never be done talking.
            let _ = child.start_kill();
            let mut said = Vec::new();
            let _ = timeout(HELLO_MAX, stderr.take(SAID_BYTES_MAX).read_to_end(&mut said)).await;
            let said = String::from_utf8_lossy(&said);
            let said = said.lines().next().unwrap_or("it says nothing");
            let what = format!("{} is no musher that can be compared with: {said}", binary.display());
            return Err(Failure::new(Exit::Refused, what)
                .hint("only builds that have the command `musher rules` answer for `--with`"));
        };
        if hello.musher_rules != PROTOCOL {
            let (theirs, build) = (hello.musher_rules, &hello.build);
            let what =
                format!("{} ({build}) speaks version {theirs}, this build {PROTOCOL}", binary.display());
            return Err(Failure::new(Exit::Refused, what).hint("compare with a build nearer to this one"));
        }
        // A full pipe would hold it up.
        tokio::spawn(async move {
            let mut stderr = stderr;
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await
        });
        Ok(Self { child, stdin, stdout, build: hello.build })
    }

    async fn answers(&mut self, question: &Question) -> Result<Vec<Answer>, String> {
        let mut asked = serde_json::to_vec(question).map_err(|error| error.to_string())?;
        asked.push(b'\n');
        let written = timeout(ANSWER_MAX, self.stdin.write_all(&asked)).await;
        written.map_err(|_| "it takes no question".to_owned())?.map_err(|error| error.to_string())?;
        let answer = timeout(ANSWER_MAX, line(&mut self.stdout, LINE_BYTES_MAX)).await;
        let answer = answer.map_err(|_| format!("no answer within {} s", ANSWER_MAX.as_secs()))??;
        serde_json::from_slice(&answer).map_err(|error| format!("its answer is none: {error}"))
    }

    /// Ends it: without questions it ends by itself.
    async fn stop(mut self) {
        drop(self.stdin);
        if timeout(HELLO_MAX, self.child.wait()).await.is_err() {
            // It is killed when it is dropped.
            eprintln!("the other build does not end, and is killed");
        }
    }
}

impl Rules for Other {
    fn ask(&mut self, question: &Question) -> Result<Vec<Answer>, RulesError> {
        let handle = Handle::current();
        tokio::task::block_in_place(|| handle.block_on(self.answers(question))).map_err(RulesError)
    }
}

/// A line without its end, at most so many bytes long.
async fn line(reader: &mut (impl AsyncBufRead + Unpin), bytes_max: u64) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    reader.take(bytes_max).read_until(b'\n', &mut text).await.map_err(|error| error.to_string())?;
    match text.pop() {
        Some(b'\n') => Ok(text),
        Some(_) if text.len() as u64 + 1 >= bytes_max => {
            Err(format!("a line has more than {bytes_max} bytes"))
        }
        _ => Err("it has ended".to_owned()),
    }
}

/// `musher rules`: answers another build on stdin and stdout, until there are no more questions.
pub fn answer_others(planted: Option<&str>) -> Outcome {
    let failed = |what: String| Failure::new(Exit::Refused, what);
    let mut host = match planted {
        None => Host::default(),
        Some(name) => {
            let bug =
                chaos::Bug::named(name).ok_or_else(|| failed(format!("no bug is called \"{name}\"")))?;
            Host::deciding(move |state, input, policy| chaos::decide_with(bug, state, input, policy))
        }
    };
    let (mut stdin, mut stdout) = (std::io::stdin().lock(), std::io::stdout().lock());
    let hello = Hello { musher_rules: PROTOCOL, build: BUILD.to_owned() };
    let mut said = serde_json::to_vec(&hello).map_err(|error| failed(error.to_string()))?;
    loop {
        said.push(b'\n');
        let told = stdout.write_all(&said).and_then(|()| stdout.flush());
        told.map_err(|error| failed(format!("the answer cannot be written: {error}")))?;
        let mut asked = Vec::new();
        let read = stdin.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut asked);
        read.map_err(|error| failed(format!("the question cannot be read: {error}")))?;
        if asked.is_empty() {
            return Ok(());
        }
        let question: Question = serde_json::from_slice(&asked)
            .map_err(|error| failed(format!("the question cannot be read: {error}")))?;
        let answers: Vec<Answer> = question.appends.iter().map(|asked| host.answer(asked)).collect();
        said = serde_json::to_vec(&answers).map_err(|error| failed(error.to_string()))?;
    }
}
