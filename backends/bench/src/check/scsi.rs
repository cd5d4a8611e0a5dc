//! SCSI hosts (virtio 1.4, section 5.6).
//!
//! Only commands that change nothing are sent.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::bench::Bench;
use super::exchange::{Answer, configured, exchange, number, started, words};
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::Session;

const SCSI: Need = Need::Type(DeviceType::SCSI);
const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const LAYOUT: Source = Source::Virtio("5.6.4 Device configuration layout");
const REQUESTS: Source =
    Source::Virtio("5.6.6.1.1 Device Requirements: Device Operation: Request Queues");
const CONTROL: Source = Source::Virtio("5.6.6.2 Device Operation: controlq");

pub const CHECKS: &[Check] = &[
    Check {
        name: "scsi.default-sizes",
        level: Level::Must,
        source: Source::Virtio("5.6.4.2 Device Requirements: Device configuration layout"),
        rule: "on reset, the device MUST set sense_size to 96 and cdb_size to 32",
        needs: &[SCSI, CONFIG],
        run: default_sizes,
    },
    Check {
        name: "scsi.address-limits",
        level: Level::Should,
        source: LAYOUT,
        rule: "max_channel SHOULD be zero, max_target SHOULD be less than or equal to 255, \
               max_lun SHOULD be less than or equal to 16383",
        needs: &[SCSI, CONFIG],
        run: address_limits,
    },
    Check {
        name: "scsi.request-queues",
        level: Level::Should,
        source: LAYOUT,
        rule: "num_queues is the total number of request virtqueues: one at least, and not more \
               than GET_QUEUE_NUM returns behind the two others",
        needs: &[SCSI, CONFIG],
        run: request_queues,
    },
    Check {
        name: "scsi.inquiry",
        level: Level::Must,
        source: REQUESTS,
        rule: "the device MUST write the status byte as the status code as defined in SAM, and \
               the response byte as VIRTIO_SCSI_S_OK when the request was completed: INQUIRY",
        needs: &[SCSI],
        run: inquiry,
    },
    Check {
        name: "scsi.test-unit-ready",
        level: Level::Must,
        source: REQUESTS,
        rule: "the device MUST write the response byte as VIRTIO_SCSI_S_OK when the request was \
               completed and the status byte is filled with a SCSI status code: TEST UNIT READY",
        needs: &[SCSI],
        run: test_unit_ready,
    },
    Check {
        name: "scsi.unknown-command",
        level: Level::Should,
        source: REQUESTS,
        rule: "the request was completed, and its status is not GOOD: CHECK CONDITION with sense \
               data for a vendor's command",
        needs: &[SCSI],
        run: unknown_command,
    },
    Check {
        name: "scsi.bad-target",
        level: Level::Must,
        source: REQUESTS,
        rule: "the device MUST write the response byte as VIRTIO_SCSI_S_BAD_TARGET if the request \
               was never processed because the target indicated by lun does not exist",
        needs: &[SCSI],
        run: bad_target,
    },
    Check {
        name: "scsi.overrun",
        level: Level::Must,
        source: REQUESTS,
        rule: "the device MUST write the response byte as VIRTIO_SCSI_S_OVERRUN if the content of \
               the CDB requires more data than is available in the datain buffer: READ CAPACITY \
               (10) into 4 bytes",
        needs: &[SCSI],
        run: overrun,
    },
    Check {
        name: "scsi.both-directions",
        level: Level::Must,
        source: REQUESTS,
        rule: "if neither dataout nor datain is empty, and VIRTIO_SCSI_F_INOUT has not been \
               negotiated, the request will be immediately returned with VIRTIO_SCSI_S_FAILURE",
        needs: &[SCSI],
        run: both_directions,
    },
    Check {
        name: "scsi.report-luns",
        level: Level::Should,
        source: Source::Virtio("5.6.6.1 Device Operation: Request Queues"),
        rule: "the virtio-scsi device SHOULD implement the REPORT LUNS well-known logical unit",
        needs: &[SCSI],
        run: report_luns,
    },
    Check {
        name: "scsi.management-function",
        level: Level::Should,
        source: CONTROL,
        rule: "the outcome of the task management function is written by the device in response: \
               of LOGICAL UNIT RESET",
        needs: &[SCSI],
        run: |bench| management(bench, LOGICAL_UNIT_RESET, &[COMPLETE, SUCCEEDED, REJECTED]),
    },
    Check {
        name: "scsi.unknown-management-function",
        level: Level::Should,
        source: CONTROL,
        rule: "the response is VIRTIO_SCSI_S_FUNCTION_REJECTED or VIRTIO_SCSI_S_FAILURE for a \
               function that nobody has defined",
        needs: &[SCSI],
        run: |bench| management(bench, 0x7ff0, &[REJECTED, FAILURE]),
    },
];

const CONTROLQ: usize = 0;
const REQUESTQ: usize = 2;

const REPORT_LUNS_UNIT: [u8; 8] = [0xc1, 1, 0, 0, 0, 0, 0, 0];

const OK: u8 = 0;
const OVERRUN: u8 = 1;
const BAD_TARGET: u8 = 3;
const COMPLETE: u8 = 0;
const FAILURE: u8 = 9;
const SUCCEEDED: u8 = 10;
const REJECTED: u8 = 11;

const LOGICAL_UNIT_RESET: u32 = 5;

const GOOD: u8 = 0;
const CHECK_CONDITION: u8 = 2;

/// struct virtio_scsi_req_cmd of the default sizes, up to the data.
const HEADER: usize = 19;
const CDB: usize = 32;
const RESPONSE: usize = 12;
const SENSE: usize = 96;

/// Unit 0 of a target.
fn unit(target: u8) -> [u8; 8] {
    [1, target, 0x40, 0, 0, 0, 0, 0]
}

struct Response {
    response: u8,
    status: u8,
    sense_len: u64,
    data: Vec<u8>,
}

impl Response {
    fn new(answer: &Answer) -> Self {
        let bytes = &answer.bytes;
        Self {
            sense_len: number::<4>(bytes, 0),
            status: bytes[10],
            response: bytes[11],
            data: bytes[RESPONSE + SENSE..].to_vec(),
        }
    }
}

fn command(
    session: &mut Session,
    lun: [u8; 8],
    cdb: &[u8],
    out: &[u8],
    into: usize,
) -> Result<Response, Fault> {
    let mut readable = lun.to_vec();
    readable.extend(1u64.to_le_bytes());
    readable.resize(HEADER, 0);
    readable.extend(cdb);
    readable.resize(HEADER + CDB, 0);
    readable.extend(out);
    let writable = (RESPONSE + SENSE + into) as u32;
    let answer = exchange(session, REQUESTQ, &readable, writable)?;
    Ok(Response::new(&answer))
}

/// A session in which target 0 has a unit 0, which has no unit attention condition any more.
fn with_unit(bench: &Bench) -> Result<Session, Fault> {
    let mut session = started(bench)?;
    for _ in 0..2 {
        if command(&mut session, unit(0), &[0; 6], &[], 0)?.response == BAD_TARGET {
            return Err(Fault::skip("there is no target 0"));
        }
    }
    Ok(session)
}

fn expect(found: &Response, response: u8, status: Option<u8>) -> Verdict {
    let is_status = status.is_none_or(|status| status == found.status);
    demand(found.response == response && is_status, || {
        let wanted = status.map_or(String::new(), |status| format!(" and status {status}"));
        format!(
            "the response is {} and the status {}, in place of response {response}{wanted}",
            found.response, found.status
        )
    })
}

fn default_sizes(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 36)?;
    let (sense, cdb) = (config.number::<4>(20), config.number::<4>(24));
    demand((sense, cdb) == (96, 32), || {
        format!("sense_size is {sense}, and cdb_size is {cdb}")
    })
}

fn address_limits(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 36)?;
    let (channel, target) = (config.number::<2>(28), config.number::<2>(30));
    let lun = config.number::<4>(32);
    demand(channel == 0 && target <= 255 && lun <= 16383, || {
        format!("max_channel is {channel}, max_target {target}, max_lun {lun}")
    })
}

fn request_queues(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 36)?;
    let (count, all) = (config.number::<4>(0), bench.profile().queues as u64);
    demand(count > 0 && count + 2 <= all, || {
        format!("num_queues is {count}, and the backend has {all} queues")
    })
}

const INQUIRY: [u8; 6] = [0x12, 0, 0, 0, 36, 0];

fn inquiry(bench: &Bench) -> Verdict {
    let found = command(&mut with_unit(bench)?, unit(0), &INQUIRY, &[], 36)?;
    expect(&found, OK, Some(GOOD))?;
    // Peripheral qualifier and type, then bytes behind the fifth (SPC, standard INQUIRY data).
    demand(found.data[0] >> 5 == 0 && found.data[4] >= 31, || {
        format!("the data are {:02x?}", found.data)
    })
}

fn test_unit_ready(bench: &Bench) -> Verdict {
    let found = command(&mut with_unit(bench)?, unit(0), &[0; 6], &[], 0)?;
    expect(&found, OK, None)?;
    demand(matches!(found.status, GOOD | CHECK_CONDITION), || {
        format!("the status is {:#x}", found.status)
    })
}

fn unknown_command(bench: &Bench) -> Verdict {
    let found = command(&mut with_unit(bench)?, unit(0), &[0xff; 6], &[], 0)?;
    expect(&found, OK, Some(CHECK_CONDITION))?;
    demand(found.sense_len > 0, || "sense_len is 0".into())
}

fn bad_target(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    let found = command(&mut session, unit(0xfe), &INQUIRY, &[], 36)?;
    if found.response == OK && found.status == GOOD && found.data[0] >> 5 == 0 {
        return Err(Fault::skip("there is a target 254"));
    }
    expect(&found, BAD_TARGET, None)
}

fn overrun(bench: &Bench) -> Verdict {
    let mut session = with_unit(bench)?;
    let mut cdb = [0; 10];
    cdb[0] = 0x25;
    let whole = command(&mut session, unit(0), &cdb, &[], 8)?;
    if (whole.response, whole.status) != (OK, GOOD) {
        return Err(Fault::skip("unit 0 has no READ CAPACITY (10)"));
    }
    let found = command(&mut session, unit(0), &cdb, &[], 4)?;
    expect(&found, OVERRUN, None)
}

fn both_directions(bench: &Bench) -> Verdict {
    let setup = bench.setup().without(&[0]);
    let mut session = bench.start(&setup)?;
    let found = command(&mut session, unit(0), &INQUIRY, &[0; 36], 36)?;
    if found.response == BAD_TARGET {
        return Err(Fault::skip("there is no target 0"));
    }
    expect(&found, FAILURE, None)
}

fn report_luns(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    let mut cdb = [0; 12];
    (cdb[0], cdb[9]) = (0xa0, 64);
    let found = command(&mut session, REPORT_LUNS_UNIT, &cdb, &[], 64)?;
    expect(&found, OK, Some(GOOD))
}

fn management(bench: &Bench, subtype: u32, wanted: &[u8]) -> Verdict {
    let mut session = started(bench)?;
    let mut readable = words(&[0, subtype]);
    readable.extend(unit(0));
    readable.extend(0u64.to_le_bytes());
    let answer = exchange(&mut session, CONTROLQ, &readable, 1)?;
    demand(wanted.contains(&answer.bytes[0]), || {
        format!("the response is {} in place of {wanted:?}", answer.bytes[0])
    })
}
