//! Dead letters in files: out of their queue and back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::line::Line;
use super::{Filter, Trouble, id};
use crate::broker::oneshot::publish_all;
use crate::broker::{Body, Held, Outgoing, Token, with_hold};
use crate::config::{self, Job};
use crate::policy::{retry, topology};
use crate::task::Message;

/// Writes the letters that the filter means into a new file, and gives their number. The queue is afterwards as it was.
pub fn export(broker: &config::Broker, job: &Job, filter: &Filter, path: &Path) -> Result<u64, Trouble> {
    let mut sheet = Sheet::create(path)?;
    with_hold(broker, &job.dead_letter.queue, None, |hold| -> Result<(), Trouble> {
        while !filter.is_full(sheet.count) {
            let Some(Held { message, token }) = hold.next()? else { break };
            hold.leave(token);
            if filter.matches(job, &message) {
                sheet.add(job, &message)?;
            }
        }
        Ok(())
    })??;
    sheet.finish()
}

/// Writes the letters that the filter means into a new file, and once it is on the disk, takes exactly these out of their
/// queue. Gives their number; without any there is no file. Only the first `most` letters of the queue are looked at.
pub fn purge(
    broker: &config::Broker,
    job: &Job,
    filter: &Filter,
    most: Option<u64>,
    path: &Path,
) -> Result<u64, Trouble> {
    let mut sheet = Sheet::create(path)?;
    with_hold(broker, &job.dead_letter.queue, most, |hold| -> Result<u64, Trouble> {
        // All before the first letter that stays go by the token of the last of them.
        let (mut through, mut single, mut all_meant) = (None, Vec::<Token>::new(), true);
        while !filter.is_full(sheet.count) {
            let Some(Held { message, token }) = hold.next()? else { break };
            if !filter.matches(job, &message) {
                all_meant = false;
                hold.leave(token);
                continue;
            }
            sheet.add(job, &message)?;
            if all_meant {
                through = Some(token);
            } else {
                single.push(token);
            }
        }
        if sheet.count == 0 {
            return Ok(0);
        }
        let count = sheet.finish()?;
        through.map_or(Ok(()), |token| hold.ack_through(token))?;
        single.into_iter().try_for_each(|token| hold.ack(token))?;
        Ok(count)
    })?
}

/// An export under way: a file beside its place, which only its owner may read. Dropped, it is removed.
struct Sheet {
    place: PathBuf,
    part: PathBuf,
    out: BufWriter<File>,
    count: u64,
    finished: bool,
}

impl Sheet {
    fn create(place: &Path) -> Result<Self, Trouble> {
        // Judged again at the end; now it saves the work.
        if place.symlink_metadata().is_ok() {
            return Err(exists(place));
        }
        let mut part = place.as_os_str().to_owned();
        part.push(format!(".part-{}", std::process::id()));
        let part = PathBuf::from(part);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        let file = opened.map_err(|error| cannot("write", &part, &error))?;
        Ok(Self { place: place.to_owned(), part, out: BufWriter::new(file), count: 0, finished: false })
    }

    fn add(&mut self, job: &Job, message: &Message) -> Result<(), Trouble> {
        let written = serde_json::to_writer(&mut self.out, &Line::of(id(job, message), message));
        let written = written.map_err(io::Error::from).and_then(|()| self.out.write_all(b"\n"));
        written.map_err(|error| cannot("write", &self.part, &error))?;
        self.count += 1;
        Ok(())
    }

    /// On the disk, under its name. Gives the number of its letters.
    fn finish(mut self) -> Result<u64, Trouble> {
        let on_disk = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        on_disk.map_err(|error| cannot("write", &self.part, &error))?;
        match renameat_with(CWD, &self.part, CWD, &self.place, RenameFlags::NOREPLACE) {
            Ok(()) => self.finished = true,
            Err(rustix::io::Errno::EXIST) => return Err(exists(&self.place)),
            Err(error) => return Err(cannot("write", &self.place, &error.into())),
        }
        let folder = match self.place.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        let named = File::open(folder).and_then(|folder| folder.sync_all());
        named.map_err(|error| cannot("write", folder, &error))?;
        Ok(self.count)
    }
}

impl Drop for Sheet {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = fs::remove_file(&self.part)
        {
            log::debug!("{} stays behind: {error}", self.part.display());
        }
    }
}

/// A file of dead letters whose every line was read and found good.
#[derive(Debug)]
pub struct Import {
    path: PathBuf,
    /// How many letters it holds.
    pub count: u64,
}

impl Import {
    /// Judges the whole file. The error names the first line that is not a dead letter.
    pub fn check(path: &Path, job: &Job) -> Result<Self, Trouble> {
        let mut count = 0;
        for outgoing in letters(path, job)? {
            outgoing?;
            count += 1;
        }
        Ok(Self { path: path.to_owned(), count })
    }
}

/// Publishes the letters of a file to the dead-letter queue, in their order, and gives their number once the broker has
/// confirmed the last one.
pub fn import(broker: &config::Broker, job: &Job, file: &Import) -> Result<u64, Trouble> {
    let mut changed = None;
    let letters = letters(&file.path, job)?.map_while(|letter| letter.map_err(|why| changed = Some(why)).ok());
    let count = publish_all(broker, letters)?;
    changed.map_or(Ok(count), Err)
}

/// Every line of a file as the message to publish.
fn letters(path: &Path, job: &Job) -> Result<impl Iterator<Item = Result<Outgoing, Trouble>>, Trouble> {
    let file = File::open(path).map_err(|error| cannot("read", path, &error))?;
    let (exchange, routing_key) = topology::to_queue(&job.dead_letter.queue);
    let lines = BufReader::new(file).split(b'\n').enumerate();
    Ok(lines.map(move |(index, line)| {
        let line = line.map_err(|error| cannot("read", path, &error))?;
        let bad = |why: String| Trouble::File(format!("{}, line {}: {why}", path.display(), index + 1));
        let (properties, body) = Line::read(&line).map_err(bad)?;
        let outgoing = Outgoing {
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            properties: retry::again(properties),
            body: Body::Bytes(body.into()),
        };
        outgoing.check().map_err(bad)?;
        Ok(outgoing)
    }))
}

fn exists(path: &Path) -> Trouble {
    Trouble::File(format!("{} exists already: name another file", path.display()))
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Trouble {
    Trouble::File(format!("cannot {what} {}: {error}", path.display()))
}
