//! What a backend asks of the frontend, on a socket of its own.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use vhost::vhost_user::message::{BackendReq, VhostUserMMap, VhostUserMMapFlags};
use vhost_user_wire::{Connection, Deadline, Header, Payload, WireError};

pub const PAGE: u64 = 4096;
/// A test has its own deadlines, and ends before this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that wants an answer.
#[derive(Clone, Debug)]
pub struct Request {
    code: BackendReq,
    payload: Vec<u8>,
    file: Option<Arc<File>>,
}

impl Request {
    pub fn config_changed() -> Self {
        Self {
            code: BackendReq::CONFIG_CHANGE_MSG,
            payload: Vec::new(),
            file: None,
        }
    }

    /// Page 0 of `file` at a page of region 0.
    pub fn map(page: u64, file: &Arc<File>) -> Self {
        Self {
            code: BackendReq::SHMEM_MAP,
            payload: range(page, VhostUserMMapFlags::WRITABLE),
            file: Some(file.clone()),
        }
    }

    pub fn unmap(page: u64) -> Self {
        Self {
            code: BackendReq::SHMEM_UNMAP,
            payload: range(page, VhostUserMMapFlags::empty()),
            file: None,
        }
    }

    /// Sends it and waits for the answer: 0 when it is done.
    pub fn ask(&self, stream: &UnixStream) -> Result<u64, WireError> {
        let stream = stream.try_clone().unwrap();
        let mut connection = Connection::to_frontend(stream);
        let deadline = Deadline::after(PATIENCE);
        let header = Header::request(self.code, self.payload.len()).with_ack();
        let files: Vec<_> = self.file.iter().map(|file| file.as_fd()).collect();
        connection.send(header, &self.payload, &files, &deadline)?;
        let answer = connection.receive(&deadline)?;
        Ok(answer.body().unwrap())
    }
}

fn range(page: u64, flags: VhostUserMMapFlags) -> Vec<u8> {
    let range = VhostUserMMap {
        shm_offset: page * PAGE,
        len: PAGE,
        flags: flags.bits(),
        ..Default::default()
    };
    range.to_bytes()
}
