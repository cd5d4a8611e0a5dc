//! One client: the greeting, the negotiation of capabilities, and then its requests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Weak;

use serde_json::{Map, Value, json};

use super::arguments::Arguments;
use super::commands;
use super::connection::Connection;
use super::error::QmpError;
use crate::control::Control;
use crate::power::PowerRequest;

/// Most files that a client has named.
const MAX_FILES: usize = 16;

/// What is kept of a client between its requests.
pub struct Session {
    connection: Connection,
    is_negotiated: bool,
    files: BTreeMap<String, File>,
}

/// A request that has been read.
struct Request {
    command: String,
    arguments: Map<String, Value>,
}

/// Serves a client until it leaves, or the machine ends.
pub fn serve(connection: Connection, control: &Weak<Control>) -> io::Result<()> {
    let mut session = Session {
        connection,
        is_negotiated: false,
        files: BTreeMap::new(),
    };
    let greeting = json!({ "QMP": { "version": commands::version(), "capabilities": [] } });
    session.connection.send(&greeting)?;
    while let Some(input) = session.connection.receive()? {
        let Some(control) = control.upgrade() else {
            return Ok(());
        };
        let (id, request) = match input {
            Ok(value) => (value.get("id").cloned(), read(&value)),
            Err(error) => (None, Err(QmpError::generic(error.to_string()))),
        };
        let ends = matches!(&request, Ok(request) if request.command == "quit");
        let answer = request.and_then(|request| session.carry_out(&control, request));
        let ends = ends && answer.is_ok();
        session.connection.send(&message(id, answer))?;
        if ends {
            // The process ends with the machine, and would not wait for the answer.
            control.power().request(PowerRequest::Off);
        }
    }
    Ok(())
}

fn message(id: Option<Value>, answer: Result<Value, QmpError>) -> Value {
    let mut message = match answer {
        Ok(value) => json!({ "return": value }),
        Err(error) => json!({ "error": error.value() }),
    };
    if let Some(id) = id {
        message["id"] = id;
    }
    message
}

fn read(input: &Value) -> Result<Request, QmpError> {
    let wrong = |text: String| Err(QmpError::generic(text));
    let Some(object) = input.as_object() else {
        return wrong("QMP input must be a JSON object".into());
    };
    let mut request = Request {
        command: String::new(),
        arguments: Map::new(),
    };
    for (name, value) in object {
        match (name.as_str(), value) {
            ("id", _) => {}
            ("execute", Value::String(command)) => request.command.clone_from(command),
            ("execute", _) => return wrong("QMP input member 'execute' must be a string".into()),
            ("arguments", Value::Object(arguments)) => request.arguments = arguments.clone(),
            ("arguments", _) => {
                return wrong("QMP input member 'arguments' must be an object".into());
            }
            (name, _) => return wrong(format!("QMP input member '{name}' is unexpected")),
        }
    }
    match object.contains_key("execute") {
        true => Ok(request),
        false => wrong("QMP input lacks member 'execute'".into()),
    }
}

impl Session {
    fn carry_out(&mut self, control: &Control, request: Request) -> Result<Value, QmpError> {
        let mut arguments = Arguments::new(request.arguments);
        match (self.is_negotiated, request.command.as_str()) {
            (false, "qmp_capabilities") => {
                self.is_negotiated = true;
                Ok(json!({}))
            }
            (true, "qmp_capabilities") => {
                let text = "Capabilities negotiation is already complete, command ignored";
                Err(QmpError::NoCommand(text.into()))
            }
            (false, _) => {
                let text = "Expecting capabilities negotiation with 'qmp_capabilities'";
                Err(QmpError::NoCommand(text.into()))
            }
            (true, "getfd") => {
                let name = arguments.text("fdname")?;
                arguments.end()?;
                self.name_file(name)
            }
            (true, "closefd") => {
                let name = arguments.text("fdname")?;
                arguments.end()?;
                let not_found = || format!("File descriptor named '{name}' not found");
                let file = self.files.remove(&name);
                file.ok_or_else(|| QmpError::generic(not_found()))?;
                Ok(json!({}))
            }
            (true, "dump-guest-memory") => super::dump::dump(control, arguments, &mut self.files),
            (true, command) => commands::carry_out(control, command, arguments),
        }
    }

    /// A file that a client has sent gets a name; one that had it is closed.
    fn name_file(&mut self, name: String) -> Result<Value, QmpError> {
        let file = self.connection.take_file();
        let none = "No file descriptor supplied via SCM_RIGHTS";
        let file = file.ok_or_else(|| QmpError::generic(none))?;
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            let text = "Parameter 'fdname' expects a name not starting with a digit";
            return Err(QmpError::generic(text));
        }
        if self.files.len() >= MAX_FILES && !self.files.contains_key(&name) {
            let text = format!("There are {MAX_FILES} file descriptors already; close one");
            return Err(QmpError::generic(text));
        }
        self.files.insert(name, file);
        Ok(json!({}))
    }
}
