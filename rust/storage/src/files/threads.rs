//! The threads that perform tasks in a node, and their calls to the thread that writes the state.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use quorate_core::files::FileTask;

use super::{Answer, BulkWriter, FileError, LmdbFiles};
use crate::bulk::Bulk;
use crate::thread::StorageHandle;

/// Threads for tasks that may take seconds.
const SLOW_THREADS: usize = 2;

/// Called once with the result, on a file thread. Must not block.
pub type OnAnswer = Box<dyn FnOnce(Answer) + Send>;

/// Accepts tasks from any thread. Dropping it ends the threads within one slice of their tasks; unfinished tasks are never
/// answered.
pub struct FileThreads(Arc<Shared>);

impl FileThreads {
    /// Starts the threads.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(files: Arc<LmdbFiles>, state: &StorageHandle) -> std::io::Result<Self> {
        let threads = FileThreads(Arc::default());
        let spawn = |name: String, pace| {
            let worker = Worker {
                files: Arc::clone(&files),
                shared: Arc::clone(&threads.0),
                state: state.clone(),
                pace,
            };
            thread::Builder::new()
                .name(name)
                .spawn(move || worker.run())
                .map(drop)
        };
        spawn("files-quick".to_owned(), Pace::Quick)?;
        for number in 0..SLOW_THREADS {
            spawn(format!("files-slow-{number}"), Pace::Slow)?;
        }
        Ok(threads)
    }

    /// Queues a task behind the pending tasks of the same owner.
    pub fn submit(&self, task: FileTask, on_answer: OnAnswer) {
        let owner = task.owner();
        let mut queue = self.0.queue();
        let first = !queue.owners.contains_key(&owner);
        let pace = Pace::of(&task);
        queue
            .owners
            .entry(owner)
            .or_default()
            .push_back((task, on_answer));
        if first {
            queue.ready[pace as usize].push_back(owner);
            self.0.changed.notify_all();
        }
    }
}

impl Drop for FileThreads {
    fn drop(&mut self) {
        self.0.queue().stopped = true;
        self.0.changed.notify_all();
    }
}

/// How long a task may take, which selects the thread.
#[derive(Clone, Copy)]
enum Pace {
    Quick,
    Slow,
}

impl Pace {
    fn of(task: &FileTask) -> Self {
        match task {
            FileTask::Read { .. } | FileTask::Write { .. } | FileTask::Retain { .. } => Pace::Quick,
            FileTask::Save { .. } | FileTask::Seal { .. } | FileTask::Load { .. } => Pace::Slow,
        }
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The pending tasks.
#[derive(Default)]
struct Queue {
    /// By owner, in order. An owner is present while one of its tasks is pending or being performed.
    owners: BTreeMap<u64, VecDeque<(FileTask, OnAnswer)>>,
    /// Owners whose next task can be performed now, by its pace.
    ready: [VecDeque<u64>; 2],
    stopped: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of the queue panics")
    }

    /// The next task of this pace; `None` if the threads must end.
    fn next(&self, pace: Pace) -> Option<(u64, FileTask, OnAnswer)> {
        let mut queue = self.queue();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(owner) = queue.ready[pace as usize].pop_front() {
                let tasks = queue.owners.get_mut(&owner).expect("a ready owner is present");
                let (task, on_answer) = tasks.pop_front().expect("a ready owner has a task");
                return Some((owner, task, on_answer));
            }
            queue = self.changed.wait(queue).expect("no holder of the queue panics");
        }
    }

    /// Marks the owner's task as done: its next one can be performed.
    fn done(&self, owner: u64) {
        let mut queue = self.queue();
        let tasks = queue
            .owners
            .get_mut(&owner)
            .expect("an owner is present until its task is done");
        match tasks.front() {
            None => {
                queue.owners.remove(&owner);
            }
            Some((task, _)) => {
                let pace = Pace::of(task);
                queue.ready[pace as usize].push_back(owner);
                self.changed.notify_all();
            }
        }
    }
}

struct Worker {
    files: Arc<LmdbFiles>,
    shared: Arc<Shared>,
    state: StorageHandle,
    pace: Pace,
}

impl Worker {
    fn run(mut self) {
        while let Some((owner, task, on_answer)) = self.shared.next(self.pace) {
            let files = Arc::clone(&self.files);
            let performed = catch_unwind(AssertUnwindSafe(|| files.perform(&task, &mut self)));
            let answer = performed.unwrap_or_else(|_| {
                Err(FileError::Failed(format!(
                    "a task with the files of group {owner:#x} panicked"
                )))
            });
            if answer == Err(FileError::Stopped) {
                return;
            }
            on_answer(answer);
            self.shared.done(owner);
        }
    }
}

impl BulkWriter for Worker {
    fn bulk(&mut self, change: &Bulk) -> Result<bool, FileError> {
        match self.state.bulk(change.clone()) {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(FileError::Stopped),
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.queue().stopped
    }
}
