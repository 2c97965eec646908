//! From the files to a checked [`Config`]: which files, read, parsed, judged whole.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::de::DeTable;

use super::job::Draft;
use super::place::{Place, Source};
use super::report::{Finding, Kind, Level, Report};
use super::section::{Reader, Section};
use super::sketch::{Node, Pass, Sketch};
use super::{Config, alert, broker, general, item::Item, job, mask, shape, sketch, syntax};

/// Where the configuration is looked for when nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/warrend/warrend.toml";
/// The environment variable that says otherwise.
pub const PATH_VARIABLE: &str = "WARREND_CONFIG";
/// The folder beside the main file.
const JOBS_FOLDER: &str = "jobs.d";

/// What came out of a good configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is allowed but probably not meant.
    pub warnings: Report,
    /// The files that were read, the main file first.
    pub files: Vec<PathBuf>,
}

/// A file on its way through the reading.
struct File {
    source: Source,
    /// What kept it from being read.
    unreadable: Option<Unreadable>,
}

/// Why a file could not be read.
enum Unreadable {
    /// The system would not let us.
    System(String),
    /// It is not UTF-8 from this byte of its text on; how to mend that.
    Encoding(usize, &'static str),
}

impl File {
    /// What is to be parsed: what could not be read as text is not guessed at.
    fn toml(&self) -> &str {
        if self.unreadable.is_none() { &self.source.text } else { "" }
    }
}

/// The main file: `option` (`-c`), else `$WARREND_CONFIG` unless empty, else [`DEFAULT_PATH`].
pub fn path(option: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let variable = || env(PATH_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    option.map(Path::to_path_buf).or_else(variable).unwrap_or_else(|| PathBuf::from(DEFAULT_PATH))
}

/// A variable of this process; what is not UTF-8 counts as not set.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the main file and `jobs.d/*.toml` beside it, and judges them together.
///
/// All errors of all files come in one report. Relative paths in any of the files are taken from the folder of the main
/// one. `env` gives the values of environment variables.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    read_all(path, env, false)
}

/// [`load`], and a look into the certificates and keys that the configuration names.
pub fn check(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Report> {
    read_all(path, env, true)
}

/// Where the daemon of this configuration listens, also where something else in it is wrong: that daemon runs on, and can
/// be asked. The default where even that cannot be read.
pub fn control_socket(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let folder = folder_of(path);
    let (file, reader) = (read(path.to_path_buf()), Reader::new(env, &folder));
    let (tree, _) = DeTable::parse_recoverable(file.toml());
    let main = Section::new(&reader, tree.get_ref(), Place::whole(0), &shape::ROOT);
    general::control(&main.section("control", &shape::CONTROL)).socket
}

fn read_all(path: &Path, env: &dyn Fn(&str) -> Option<String>, inspects_files: bool) -> Result<Loaded, Report> {
    let folder = folder_of(path);
    let mut files = vec![read(path.to_path_buf())];
    if files[0].unreadable.is_none() {
        files.extend(job_files(&path.with_file_name(JOBS_FOLDER)));
    }
    let mut reader = Reader::new(env, &folder);
    reader.inspects_files = inspects_files;
    judge(&files, reader)
}

/// Handlers may run in another folder than the daemon. Where the current one is gone, paths stay as they are.
fn folder_of(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::path::absolute(folder.join(".")).unwrap_or_else(|_| folder.to_path_buf())
}

fn read(path: PathBuf) -> File {
    let (text, unreadable) = match std::fs::read(&path) {
        Err(error) => (String::new(), Some(Unreadable::System(format!("cannot read this file: {error}")))),
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let place = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                (text, Some(Unreadable::Encoding(place, syntax::mend_encoding(error.as_bytes()))))
            }
        },
    };
    File { source: Source { path, text }, unreadable }
}

/// The files of `jobs.d` in the order of their names. Hidden ones are left out: editors keep their own there.
fn job_files(folder: &Path) -> Vec<File> {
    let unreadable = |error: std::io::Error| {
        let unreadable = Some(Unreadable::System(format!("cannot read this folder: {error}")));
        vec![File { source: Source { path: folder.to_path_buf(), text: String::new() }, unreadable }]
    };
    let entries: std::io::Result<Vec<_>> = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => return unreadable(error),
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
    };
    let mut paths = match entries {
        Ok(paths) => paths,
        Err(error) => return unreadable(error),
    };
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml") && !hidden(path));
    paths.sort();
    paths.into_iter().map(read).collect()
}

/// Judges what was read.
fn judge(files: &[File], reader: Reader<'_>) -> Result<Loaded, Report> {
    let parsed: Vec<_> = files.iter().map(|file| DeTable::parse_recoverable(file.toml())).collect();
    let mut broken_lines: Vec<Vec<usize>> = Vec::new();
    for (index, (file, (tree, errors))) in files.iter().zip(&parsed).enumerate() {
        broken_lines.push(syntax(&reader, index, file, tree.get_ref(), errors));
    }
    let mut roots = Vec::new();
    for (index, (tree, _)) in parsed.iter().enumerate() {
        let shape = if index == 0 { &shape::ROOT } else { &shape::JOBS_FILE };
        roots.push(Section::new(&reader, tree.get_ref(), Place::whole(index), shape));
    }
    let broken = broken_lines.iter().any(|lines| !lines.is_empty());
    let config = whole(&reader, &roots, &files[0].source.path, broken);
    let mut findings = reader.into_findings();
    findings.retain(|finding| !doubtful(finding, files, &broken_lines));
    let secrets: Vec<Vec<Range<usize>>> = files
        .iter()
        .zip(&parsed)
        .zip(&broken_lines)
        .map(|((file, (tree, _)), broken)| mask::secrets(&file.source.text, tree.get_ref(), !broken.is_empty()))
        .collect();
    let report = Report::new(findings, files.iter().map(|file| &file.source), &secrets);
    if report.errors() > 0 {
        return Err(report);
    }
    Ok(Loaded { config, warnings: report, files: files.iter().map(|file| file.source.path.clone()).collect() })
}

/// Notes what keeps a file from being TOML, at most once a line, and gives these lines.
fn syntax(
    reader: &Reader<'_>,
    index: usize,
    file: &File,
    tree: &DeTable<'_>,
    errors: &[toml::de::Error],
) -> Vec<usize> {
    let note = |place, message: String, help: Option<String>, also| {
        reader.note(Finding { level: Level::Error, kind: Kind::Syntax, place, message, help, also });
    };
    if let Some(unreadable) = &file.unreadable {
        match unreadable {
            Unreadable::System(message) => {
                let help = (index == 0).then(|| format!("name the file with -c PATH, or in {PATH_VARIABLE}"));
                note(Place::whole(index), message.clone(), help, None);
            }
            Unreadable::Encoding(offset, mend) => {
                let place = Place::of(index, *offset..offset + 1);
                note(place, "this file is not UTF-8".to_owned(), Some((*mend).to_owned()), None);
            }
        }
        return vec![0];
    }
    let (mut broken, mut told) = (Vec::new(), Vec::new());
    for error in errors {
        let span = error.span().unwrap_or_default();
        let (line, _) = file.source.line_and_column(span.start);
        if broken.contains(&line) {
            continue;
        }
        broken.push(line);
        let first =
            first_job(&file.source.text, tree, &span).map(|first| (Place::of(index, first), "first defined here"));
        let slip = syntax::explain(&file.source, span, error.message());
        // Several lines may suffer from one.
        let (line, _) = file.source.line_and_column(slip.span.start);
        if !told.contains(&line) {
            told.push(line);
            note(Place::of(index, slip.span), slip.message, slip.help, first);
        }
    }
    broken.extend(told);
    broken
}

/// Where a job was defined before, if `duplicate` is the name of one in a second `[jobs.NAME]`.
fn first_job(text: &str, tree: &DeTable<'_>, duplicate: &Range<usize>) -> Option<Range<usize>> {
    let jobs = tree.get("jobs")?.get_ref().as_table()?;
    let (name, _) = jobs.iter().find(|(name, _)| name.span() == *duplicate)?;
    // The tree keeps the last place of a table that stands twice: the first is in the part before it.
    let (before, _) = DeTable::parse_recoverable(text.get(..duplicate.start)?);
    let (first, _) = before.get_ref().get("jobs")?.get_ref().as_table()?.get_key_value(name.get_ref().as_ref())?;
    Some(first.span())
}

/// Whether a finding may only come from the part of a broken file that could not be read.
fn doubtful(finding: &Finding, files: &[File], broken_lines: &[Vec<usize>]) -> bool {
    let broken = &broken_lines[finding.place.file];
    match finding.kind {
        Kind::Syntax => false,
        Kind::Missing => !broken.is_empty(),
        // What takes no bytes was put there by the parser.
        Kind::Fault => finding.place.bytes.is_some_and(|(start, end)| {
            let line = files[finding.place.file].source.line_and_column(start).0;
            broken.contains(&line) || (start == end && !broken.is_empty())
        }),
    }
}

/// Notes what the tables of the main file may hold, with all that stands below them.
pub fn sketch() -> Vec<Node> {
    let sketch = Sketch::new();
    for probe in &sketch::probes() {
        let pass = Pass { sketch: &sketch, probe };
        let mut reader = Reader::new(&|_| None, Path::new("/"));
        reader.pass = Some(pass);
        let main = Section::sketched(&reader, pass, 0, &shape::ROOT);
        whole(&reader, &[main], Path::new(""), false);
    }
    sketch.into_nodes()
}

/// Reads all tables of all files. `path`: the main file. `broken`: some tables may be missing.
fn whole<'a>(reader: &'a Reader<'a>, roots: &[Section<'a>], path: &Path, broken: bool) -> Config {
    let main = roots[0];
    let (broker, store) = (broker::broker(&main), general::store(&main.section("store", &shape::STORE)));
    let control = general::control(&main.section("control", &shape::CONTROL));
    let http = general::http(&main.section("http", &shape::HTTP));
    let shutdown = general::shutdown(&main.section("shutdown", &shape::SHUTDOWN));
    let log = general::log(&main.section("log", &shape::LOG));
    let mut drafts: Vec<Draft> =
        jobs(reader, roots).iter().filter_map(|(name, item)| job::read(name, item, &store)).collect();
    drafts.sort_by(|a, b| a.job.name.cmp(&b.job.name));
    if roots.iter().all(|root| root.item("jobs").is_none() && !root.misspells(&["jobs"])) && !broken {
        let help = format!("add [jobs.NAME] to {}, or to a file in {JOBS_FOLDER}", path.display());
        reader.missing(Place::whole(0), "there is no job", help);
    }
    across(reader, &drafts);
    let jobs: Vec<_> = drafts.into_iter().map(|draft| draft.job).collect();
    let names: Vec<_> = jobs.iter().map(|job| Arc::clone(&job.name)).collect();
    let alerts = alert::read(&main, &names);
    Config { broker, store, control, http, shutdown, log, jobs, alerts }
}

/// The jobs of all files. One that two files define is noted, and only the first of them kept.
fn jobs<'a>(reader: &Reader<'_>, roots: &[Section<'a>]) -> Vec<(&'a str, Item<'a>)> {
    let mut jobs: BTreeMap<&str, Item<'_>> = BTreeMap::new();
    let of_file = |root: &Section<'a>| {
        let jobs = root.item("jobs")?;
        jobs.names(job::NAME_FORM);
        jobs.entries()
    };
    for (name, item) in roots.iter().filter_map(of_file).flatten() {
        match jobs.get(name) {
            None => drop(jobs.insert(name, item)),
            Some(first) => {
                let message = format!("the job `{}` is defined twice", mask::quote(name));
                let also = (first.key_place, "first defined here");
                reader.clash(item.key_place, message, "rename one of them, or remove it", also);
            }
        }
    }
    jobs.into_iter().collect()
}

/// The checks that take several jobs.
fn across(reader: &Reader<'_>, drafts: &[Draft]) {
    let mut consumed: BTreeMap<&str, Place> = BTreeMap::new();
    for draft in drafts.iter().filter(|draft| draft.job.enabled) {
        let mut own: BTreeMap<&str, Place> = BTreeMap::new();
        for (queue, place) in draft.job.queues.iter().zip(&draft.queue_places) {
            own.insert(&queue.name, *place);
        }
        for (name, place) in own {
            let first = *consumed.entry(name).or_insert(place);
            if first != place {
                let help = "two jobs would share its messages at random: give each a queue, or disable one of them";
                let also = (first, "the other job's");
                reader.clash(place, "another job consumes this queue too", help, also);
            }
        }
    }
    let mut exchanges: BTreeMap<&str, (&str, Place)> = BTreeMap::new();
    for (binding, place) in drafts.iter().flat_map(|draft| &draft.exchanges) {
        let (kind, first) = *exchanges.entry(&binding.exchange).or_insert((&binding.kind, *place));
        if kind != binding.kind {
            let help = "an exchange has one type: write the same in each binding";
            reader.clash(*place, "this exchange has another type elsewhere", help, (first, "first named here"));
        }
    }
    if let Some(first) = drafts.first()
        && drafts.iter().all(|draft| !draft.job.enabled)
    {
        reader.warn(first.place, "all jobs are disabled", "nothing will be consumed until one has enabled = true");
    }
}
