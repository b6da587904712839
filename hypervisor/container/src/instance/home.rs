//! The list of instances, and each one's files.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::files::{Lasting, make_dir, read, remove_tree, sync_dir, write};
use super::log::{LogReader, LogWriter};
use super::spare::Spare;
use super::{
    Event, EventKind, Exit, Id, InstanceError, Killer, Live, Name, SocketPath, Spec, State, Status, Time, names,
};

/// What an instance is called whose folder is not complete.
const UNFINISHED: &str = "new-";
/// How many names are tried before giving up on finding one that is free.
const NAME_TRIES: u32 = 64;

/// Where all instances are kept.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
}

/// Who may change the list of instances, until it is dropped.
struct Turn {
    _lock: File,
}

impl Home {
    /// The instances kept in this folder, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, InstanceError> {
        let home = Self { path: path.into() };
        for folder in ["names", "live", "instances"] {
            make_dir(&home.path.join(folder))?;
        }
        Ok(home)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn turn(&self) -> Result<Turn, InstanceError> {
        let path = self.path.join("lock");
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&path).map_err(InstanceError::file("create", &path))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|error| InstanceError::file("lock", &path)(error.into()))?;
        Ok(Turn { _lock: lock })
    }

    fn spare(&self) -> Spare {
        Spare(self.path.join("spare"))
    }

    fn instances(&self) -> PathBuf {
        self.path.join("instances")
    }

    fn name_path(&self, name: &Name) -> PathBuf {
        self.path.join("names").join(name.as_str())
    }

    fn live_path(&self, id: &Id) -> PathBuf {
        self.path.join("live").join(id.as_str())
    }

    /// Makes an instance, which then is [`Created`](Status::Created).
    ///
    /// # Errors
    ///
    /// [`InstanceError::NameTaken`], [`InstanceError::File`].
    pub fn create(&self, spec: Spec) -> Result<Instance, InstanceError> {
        let id = Id::random()?;
        let new = self.instances().join(format!("{UNFINISHED}{id}"));
        let _unfinished = {
            let _turn = self.turn()?;
            if !self.spare().take(&new) {
                make_dir(&new)?;
            }
            hold(&new)?
        };
        let finish = || {
            let lasting = lasting(&spec);
            write(&new.join("spec.json"), &spec, lasting)?;
            let _turn = self.turn()?;
            self.is_free(&spec.name)?;
            // A crash in between leaves a name that leads nowhere, which is free.
            self.give_name(&spec.name, &id)?;
            let path = self.instances().join(id.as_str());
            fs::rename(&new, &path).map_err(InstanceError::file("rename a folder to", &path))?;
            match lasting {
                Lasting::ForGood => sync_dir(&self.instances()),
                Lasting::WhileItRuns => Ok(()),
            }
        };
        if let Err(error) = finish() {
            // It is of no use to anybody; what cannot be removed, the next sweep tries again.
            let _ = remove_tree(&new);
            return Err(error);
        }
        let instance = self.instance(id, spec);
        instance.event(EventKind::Create, String::new())?;
        Ok(instance)
    }

    /// Begins to make an instance that this process is to supervise, for a start that does not wait until it is written
    /// down: it has a folder, and is found by nobody until it is [registered](Instance::register). If this process dies
    /// before, the next sweep removes the folder.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub fn begin(&self, spec: Spec) -> Result<(Instance, Live), InstanceError> {
        self.is_free(&spec.name)?;
        let instance = self.instance(Id::random()?, spec);
        let live = instance.claim()?;
        let made = self.turn().and_then(|_turn| {
            if self.spare().take(&instance.dir) {
                return Ok(());
            }
            make_dir(&instance.dir)
        });
        match made.and_then(|()| instance.event(EventKind::Create, String::new())) {
            Ok(()) => Ok((instance, live)),
            Err(error) => {
                // It is of no use to anybody; what cannot be removed, the next sweep tries again.
                if remove_tree(&instance.dir).is_ok() {
                    let _ = live.end();
                }
                Err(error)
            }
        }
    }

    /// A name that nobody has at the moment.
    ///
    /// # Errors
    ///
    /// [`InstanceError::System`] if the kernel has no random bytes.
    pub fn free_name(&self) -> Result<Name, InstanceError> {
        let mut name = Name::new(&names::nth(0))?;
        for _ in 0..NAME_TRIES {
            let mut bytes = [0; 4];
            rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
                .map_err(InstanceError::system("get random bytes"))?;
            name = Name::new(&names::nth(u32::from_le_bytes(bytes)))?;
            if self.owner(&name)?.is_none() {
                break;
            }
        }
        Ok(name)
    }

    /// Who has a name.
    fn owner(&self, name: &Name) -> Result<Option<Id>, InstanceError> {
        let path = self.name_path(name);
        match fs::read_link(&path) {
            Ok(link) => Ok(self.named_by(&link)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(InstanceError::file("read", &path)(error)),
        }
    }

    /// Refuses a name that somebody has.
    fn is_free(&self, name: &Name) -> Result<(), InstanceError> {
        match self.owner(name)? {
            None => Ok(()),
            Some(owner) => Err(InstanceError::NameTaken {
                name: name.to_string(),
                id: owner.short().to_owned(),
            }),
        }
    }

    /// Whom the link of a name means, if there is such an instance.
    fn named_by(&self, link: &Path) -> Option<Id> {
        let id = Id::unpacked(link.to_str()?)?;
        self.instances().join(id.as_str()).exists().then_some(id)
    }

    fn give_name(&self, name: &Name, id: &Id) -> Result<(), InstanceError> {
        let (path, new) = (self.name_path(name), self.path.join("names").join(format!(".{id}")));
        let _ = fs::remove_file(&new);
        symlink(id.packed(), &new).map_err(InstanceError::file("create", &new))?;
        fs::rename(&new, &path).map_err(InstanceError::file("create", &path))
    }

    fn instance(&self, id: Id, spec: Spec) -> Instance {
        Instance {
            dir: self.instances().join(id.as_str()),
            home: self.clone(),
            id,
            spec,
        }
    }

    /// The instance with this ID; `None` if there is none.
    fn load(&self, id: Id) -> Result<Option<Instance>, InstanceError> {
        let spec = read(&self.instances().join(id.as_str()).join("spec.json"))?;
        Ok(spec.map(|spec| self.instance(id, spec)))
    }

    /// The IDs of all instances, and the folders of those that were never finished.
    fn scan(&self) -> Result<(Vec<Id>, Vec<PathBuf>), InstanceError> {
        let path = self.instances();
        let (mut ids, mut unfinished) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&path).map_err(InstanceError::file("read", &path))? {
            let entry = entry.map_err(InstanceError::file("read", &path))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            match name.parse() {
                Ok(id) => ids.push(id),
                Err(_) if name.starts_with(UNFINISHED) => unfinished.push(entry.path()),
                Err(_) => {}
            }
        }
        Ok((ids, unfinished))
    }

    /// All instances, the newest first.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`], [`InstanceError::Damaged`].
    pub fn list(&self) -> Result<Vec<Instance>, InstanceError> {
        let mut all = Vec::new();
        for id in self.scan()?.0 {
            all.extend(self.load(id)?);
        }
        all.sort_by(|a, b| b.spec.created.cmp(&a.spec.created).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// The instance with this name, this ID, or the only one whose ID begins like this.
    ///
    /// # Errors
    ///
    /// [`InstanceError::NotFound`], [`InstanceError::Ambiguous`], and those of reading.
    pub fn find(&self, text: &str) -> Result<Instance, InstanceError> {
        let not_found = || InstanceError::NotFound(text.to_owned());
        let by_name = Name::new(text)
            .ok()
            .map(|name| self.owner(&name))
            .transpose()?
            .flatten();
        if let Some(id) = by_name.or_else(|| text.parse().ok()) {
            return self.load(id)?.ok_or_else(not_found);
        }
        if text.is_empty() {
            return Err(not_found());
        }
        let mut matches: Vec<_> = self.scan()?.0;
        matches.retain(|id| id.as_str().starts_with(text));
        match matches.len() {
            0 => Err(not_found()),
            1 => self.load(matches.remove(0))?.ok_or_else(not_found),
            count => Err(InstanceError::Ambiguous {
                prefix: text.to_owned(),
                count,
            }),
        }
    }

    /// Gives an instance another name.
    ///
    /// # Errors
    ///
    /// [`InstanceError::NameTaken`], and those of writing.
    pub fn rename(&self, instance: &mut Instance, name: Name) -> Result<(), InstanceError> {
        let old = instance.spec.name.clone();
        {
            let _turn = self.turn()?;
            self.is_free(&name)?;
            self.give_name(&name, &instance.id)?;
            instance.spec.name = name;
            write(&instance.dir.join("spec.json"), &instance.spec, Lasting::ForGood)?;
            let path = self.name_path(&old);
            fs::remove_file(&path).map_err(InstanceError::file("remove", &path))?;
        }
        instance.event(EventKind::Rename, old.to_string())
    }

    /// Removes an instance with all its files.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Wrong`] if it has a supervisor.
    pub fn remove(&self, instance: &Instance) -> Result<(), InstanceError> {
        let Some(live) = Live::claim(&self.live_path(&instance.id))? else {
            return Err(instance.wrong(instance.status()?, "stop it first, or remove it with --force"));
        };
        self.remove_claimed(instance, live)
    }

    /// Removes an instance whose supervisor this process is.
    pub(super) fn remove_claimed(&self, instance: &Instance, live: Live) -> Result<(), InstanceError> {
        let removal = self.begin_removal(instance)?;
        self.end_removal(instance, removal, live)
    }

    /// Takes an instance whose supervisor this process is off the list, and empties its folder. Its process may still
    /// be on its way out.
    pub(super) fn begin_removal(&self, instance: &Instance) -> Result<Removal, InstanceError> {
        let folder = self.instances().join(format!("{UNFINISHED}{}", instance.id));
        let held = {
            let _turn = self.turn()?;
            // From here on it is unfinished business of the next sweep, if this process dies.
            fs::rename(&instance.dir, &folder).map_err(InstanceError::file("rename", &instance.dir))?;
            if self.owner(&instance.spec.name)?.is_none() {
                let path = self.name_path(&instance.spec.name);
                let _ = fs::remove_file(path);
            }
            // Without, whoever tidies up may be quicker than this process.
            hold(&folder).unwrap_or_default()
        };
        let is_empty = !self.spare().is_there() && Spare::empty(&folder).is_ok();
        Ok(Removal {
            folder,
            is_empty,
            _held: held,
        })
    }

    /// Removes what is left of it, or keeps that for the next; its process is gone.
    pub(super) fn end_removal(&self, instance: &Instance, removal: Removal, live: Live) -> Result<(), InstanceError> {
        {
            let _turn = self.turn()?;
            self.spare().keep(&removal.folder, removal.is_empty)?;
        }
        live.end()?;
        instance.event(EventKind::Remove, String::new())
    }

    /// Takes down what dead supervisors left: `clean` is called for each instance of such a one, to
    /// remove what is not a file of this record. At most `most` supervisors are looked at. Returns how
    /// many were dead.
    ///
    /// # Errors
    ///
    /// The first that is met; the others are swept all the same.
    pub fn sweep<E: From<InstanceError>>(
        &self,
        most: usize,
        mut clean: impl FnMut(&Instance) -> Result<(), E>,
    ) -> Result<usize, E> {
        let path = self.path.join("live");
        let marks = fs::read_dir(&path).map_err(InstanceError::file("read", &path))?;
        let (mut dead, mut first) = (0, Ok(()));
        for mark in marks.take(most).flatten() {
            let Some(live) = Live::of_dead(&mark.path())? else {
                continue;
            };
            let id: Option<Id> = mark.file_name().to_str().and_then(|name| name.parse().ok());
            let instance = id.clone().map(|id| self.load(id)).transpose()?.flatten();
            if let (Some(id), None) = (&id, &instance) {
                // It died before it had registered the instance.
                let folder = self.instances().join(id.as_str());
                if folder.exists() {
                    remove_tree(&folder)?;
                }
            }
            let result = instance
                .as_ref()
                .map_or(Ok(()), |instance| self.bury(instance, &mut clean));
            match result {
                Ok(()) => {
                    dead += 1;
                    let remove = instance.as_ref().filter(|instance| instance.spec.remove);
                    match remove {
                        Some(instance) => self.remove_claimed(instance, live)?,
                        None => live.end()?,
                    }
                }
                Err(error) => first = first.and(Err(error)),
            }
        }
        first.map(|()| dead)
    }

    /// Ends the record of an instance whose supervisor died.
    fn bury<E: From<InstanceError>>(
        &self,
        instance: &Instance,
        clean: &mut impl FnMut(&Instance) -> Result<(), E>,
    ) -> Result<(), E> {
        clean(instance)?;
        let mut state = instance.state()?;
        if state.status.is_live() {
            state.exit = Some(Exit {
                code: 128 + libc::SIGKILL,
                killer: Some(Killer::Unknown),
                at: Time::now(),
            });
            (state.status, state.pid, state.supervisor) = (Status::Exited, None, None);
            instance.set_state(&state)?;
        }
        instance.event(EventKind::Sweep, String::new())?;
        Ok(())
    }

    /// Removes folders that were never finished, and names that lead nowhere.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn tidy(&self) -> Result<usize, InstanceError> {
        let _turn = self.turn()?;
        let mut removed = 0;
        let (ids, unfinished) = self.scan()?;
        for id in ids {
            // One that is begun has the mark of its supervisor from before it had a folder.
            let folder = self.instances().join(id.as_str());
            let is_begun = folder.exists() && !folder.join("spec.json").exists();
            if is_begun && !self.live_path(&id).exists() {
                remove_tree(&folder)?;
                removed += 1;
            }
        }
        for folder in unfinished {
            // Whoever makes an instance holds its folder for as long.
            if hold(&folder)?.is_some() {
                remove_tree(&folder)?;
                removed += 1;
            }
        }
        let path = self.path.join("names");
        for entry in fs::read_dir(&path)
            .map_err(InstanceError::file("read", &path))?
            .flatten()
        {
            let leads = fs::read_link(entry.path()).is_ok_and(|link| self.named_by(&link).is_some());
            if !leads {
                fs::remove_file(entry.path()).map_err(InstanceError::file("remove", &entry.path()))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// What happened, the oldest first.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn events(&self) -> Result<Vec<Event>, InstanceError> {
        Event::read(&self.events_path())
    }

    /// The file that events are added to, for who waits for more of them.
    #[must_use]
    pub fn events_path(&self) -> PathBuf {
        self.path.join("events")
    }
}

/// What is left of an instance that is being removed.
#[derive(Debug)]
pub(super) struct Removal {
    folder: PathBuf,
    /// Nothing is in it but what is kept for the next.
    is_empty: bool,
    /// Until then nobody else takes it for unfinished.
    _held: Option<File>,
}

/// How long what is asked for is to last.
const fn lasting(spec: &Spec) -> Lasting {
    if spec.remove {
        Lasting::WhileItRuns
    } else {
        Lasting::ForGood
    }
}

/// Holds a folder until the file is closed, by a lock that the kernel drops when this process dies; `None` if
/// another process holds it.
fn hold(folder: &Path) -> Result<Option<File>, InstanceError> {
    let file = File::open(folder).map_err(InstanceError::file("open", folder))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(InstanceError::file("lock", folder)(error.into())),
    }
}

/// An instance and its files.
#[derive(Clone, Debug)]
pub struct Instance {
    home: Home,
    dir: PathBuf,
    id: Id,
    spec: Spec,
}

impl Instance {
    /// Its ID.
    #[must_use]
    pub const fn id(&self) -> &Id {
        &self.id
    }

    /// What was asked for.
    #[must_use]
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.spec.name
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The list it is in.
    #[must_use]
    pub const fn home(&self) -> &Home {
        &self.home
    }

    /// Writes down what is asked for, of one that was [begun](Home::begin), and takes its name: from here on it is found.
    ///
    /// # Errors
    ///
    /// As [`Home::create`]. The instance is to be [removed](Home::remove) then.
    pub fn register(&self) -> Result<(), InstanceError> {
        let lasting = lasting(&self.spec);
        write(&self.dir.join("spec.json"), &self.spec, lasting)?;
        {
            let _turn = self.home.turn()?;
            self.home.is_free(&self.spec.name)?;
            self.home.give_name(&self.spec.name, &self.id)?;
        }
        match lasting {
            Lasting::ForGood => sync_dir(&self.home.instances()),
            Lasting::WhileItRuns => Ok(()),
        }
    }

    /// Changes what is asked for, as of the next start.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`], [`InstanceError::Damaged`]; [`InstanceError::NotFound`] if it was removed.
    pub fn change(&mut self, change: impl FnOnce(&mut Spec)) -> Result<(), InstanceError> {
        let _turn = self.home.turn()?;
        self.reload()?;
        change(&mut self.spec);
        write(&self.dir.join("spec.json"), &self.spec, Lasting::ForGood)
    }

    /// Reads again what is asked for: another process may have changed it.
    ///
    /// # Errors
    ///
    /// As [`change`](Self::change).
    pub fn reload(&mut self) -> Result<(), InstanceError> {
        let spec = read(&self.dir.join("spec.json"))?;
        self.spec = spec.ok_or_else(|| InstanceError::NotFound(self.spec.name.to_string()))?;
        Ok(())
    }

    /// The path of a socket in its folder.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`] if the folder is not there.
    pub fn socket(&self, name: &str) -> Result<SocketPath, InstanceError> {
        SocketPath::new(self, name)
    }

    /// Waits until its supervisor has ended, however it did, or for so long; whether it has ended.
    ///
    /// # Errors
    ///
    /// [`InstanceError::System`].
    pub fn wait_for(&self, limit: Duration) -> Result<bool, InstanceError> {
        let end = Instant::now().checked_add(limit);
        let Some(supervisor) = self.supervisor()? else {
            return Ok(!self.is_live());
        };
        loop {
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            match poll(&mut [PollFd::new(&supervisor, PollFlags::IN)], left.as_ref()) {
                Ok(0) => return Ok(!self.is_live()),
                Ok(_) => return Ok(true),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(InstanceError::system("wait for an instance")(error)),
            }
        }
    }

    /// Its supervisor's descriptor; `None` if it has none that lives.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`], [`InstanceError::Damaged`].
    pub fn supervisor(&self) -> Result<Option<OwnedFd>, InstanceError> {
        let number = || Ok::<_, InstanceError>(self.state()?.supervisor);
        let Some(pid) = number()? else { return Ok(None) };
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let opened = raw.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        // The number may have become another process's while it was looked up.
        Ok(opened.filter(|_| self.is_live() && number().ok() == Some(Some(pid))))
    }

    /// Where it is in its life, as its supervisor wrote it last.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`], [`InstanceError::Damaged`].
    pub fn state(&self) -> Result<State, InstanceError> {
        let mut state: State = read(&self.dir.join("state.json"))?.unwrap_or_default();
        if state.status == Status::Running && self.is_marked(Mark::Paused) {
            state.status = Status::Paused;
        }
        if state.status.is_live() && !self.is_live() {
            state.status = Status::Exited;
        }
        Ok(state)
    }

    /// Where it is in its life.
    ///
    /// # Errors
    ///
    /// As [`state`](Self::state).
    pub fn status(&self) -> Result<Status, InstanceError> {
        Ok(self.state()?.status)
    }

    pub(super) fn set_state(&self, state: &State) -> Result<(), InstanceError> {
        write(&self.dir.join("state.json"), state, Lasting::WhileItRuns)
    }

    /// What was made for it; null before it was started.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`], [`InstanceError::Damaged`].
    pub fn report(&self) -> Result<Value, InstanceError> {
        Ok(read(&self.dir.join("report.json"))?.unwrap_or_default())
    }

    /// Writes down what was made for it, so that the next command can take it down if need be.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn set_report(&self, report: &Value) -> Result<(), InstanceError> {
        write(&self.dir.join("report.json"), report, Lasting::WhileItRuns)
    }

    /// Whether its supervisor lives.
    #[must_use]
    pub fn is_live(&self) -> bool {
        Live::is(&self.home.live_path(&self.id))
    }

    /// Waits until its supervisor has ended, however it did.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn wait(&self) -> Result<(), InstanceError> {
        Live::wait(&self.home.live_path(&self.id))
    }

    /// Makes this process its supervisor.
    ///
    /// # Errors
    ///
    /// [`InstanceError::Busy`] if it has one.
    pub fn claim(&self) -> Result<Live, InstanceError> {
        let live = Live::claim(&self.home.live_path(&self.id))?;
        live.ok_or_else(|| InstanceError::Busy(self.spec.name.to_string()))
    }

    /// What it writes, to be added to.
    pub(super) fn log_writer(&self) -> Result<LogWriter, InstanceError> {
        LogWriter::open(&self.log_path())
    }

    /// What it wrote.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn log(&self) -> Result<LogReader, InstanceError> {
        LogReader::open(&self.log_path())
    }

    /// The file of what it wrote.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Tells its supervisor, or the next command, something.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn mark(&self, mark: Mark, set: bool) -> Result<(), InstanceError> {
        let path = self.dir.join(mark.file());
        let result = if set {
            File::create(&path).map(drop)
        } else {
            fs::remove_file(&path)
        };
        let result = match result {
            // Nothing to take back; or the instance has ended meanwhile, and is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        };
        result.map_err(InstanceError::file("write", &path))
    }

    /// Whether it was told.
    #[must_use]
    pub fn is_marked(&self, mark: Mark) -> bool {
        self.dir.join(mark.file()).exists()
    }

    /// Adds to the list of what happened.
    ///
    /// # Errors
    ///
    /// [`InstanceError::File`].
    pub fn event(&self, kind: EventKind, detail: String) -> Result<(), InstanceError> {
        let event = Event {
            time: Time::now(),
            kind,
            id: self.id.clone(),
            name: self.spec.name.clone(),
            detail,
        };
        event.append(&self.home.events_path())
    }

    /// The error of who asks for what cannot be done in the part of its life that it is in.
    #[must_use]
    pub fn wrong_now(&self, hint: &'static str) -> InstanceError {
        self.status()
            .map_or_else(|error| error, |status| self.wrong(status, hint))
    }

    /// The error of who asks for what cannot be done now.
    #[must_use]
    pub fn wrong(&self, status: Status, hint: &'static str) -> InstanceError {
        InstanceError::Wrong {
            name: self.spec.name.to_string(),
            status,
            hint,
        }
    }
}

/// What commands tell a supervisor: a file that is there, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is to end, and no policy starts it again.
    Stop,
    /// Its processes do not run.
    Paused,
}

impl Mark {
    const fn file(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Paused => "paused",
        }
    }
}
