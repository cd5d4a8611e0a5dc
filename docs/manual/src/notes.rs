//! What man pages say that no command line does.

/// The notes of one page.
#[derive(Clone, Copy)]
pub struct Notes {
    /// Exit statuses, with what each means.
    pub statuses: &'static [(u8, &'static str)],
    pub environment: &'static [(&'static str, &'static str)],
    pub files: &'static [(&'static str, &'static str)],
    /// Pages of section 1.
    pub see_also: &'static [&'static str],
}

const LOG_FILTER: (&str, &str) = (
    "RUST_LOG",
    "What is logged to standard error: error, warn, info, debug or trace; the default is warn.",
);

const COMMAND: Notes = Notes {
    statuses: &[
        (0, "The command did what it was asked for."),
        (1, "The host or the machine that was asked failed."),
        (2, "Bad usage."),
    ],
    environment: &[LOG_FILTER],
    files: &[],
    see_also: &[],
};

const BACKEND: Notes = Notes {
    statuses: &[
        (
            0,
            "The program was asked to end, or the frontend of --fd has left.",
        ),
        (1, "The host failed, or does not have what was asked for."),
        (2, "Bad usage."),
    ],
    environment: &[LOG_FILTER],
    files: &[],
    see_also: &["outboard", "outboard-run", "outboard-check"],
};

const TOP: Notes = Notes {
    files: &[
        (
            "/etc/outboard/NAME.toml",
            "Configuration of the machine that outboard@NAME.service runs.",
        ),
        (
            "share/doc/outboard",
            "Below the prefix of the installation: the guides to gdb, traces, dumps and backends.",
        ),
    ],
    see_also: &[
        "outboard-blk",
        "outboard-net",
        "outboard-console",
        "outboard-rng",
        "outboard-check",
        "gdb",
    ],
    ..COMMAND
};

const RUN: Notes = Notes {
    statuses: &[
        (
            0,
            "The guest powered off, or rebooted under --on-reboot exit, or the user quit.",
        ),
        (1, "The host failed."),
        (2, "Bad usage."),
        (3, "The guest crashed, or panicked under --on-panic exit."),
    ],
    environment: &[
        LOG_FILTER,
        (
            "NO_COLOR",
            "If it is not empty, log lines on a terminal have no colour.",
        ),
    ],
    files: &[(
        "/etc/outboard/NAME.toml",
        "A file for --config: the one that outboard@NAME.service runs.",
    )],
    see_also: &[
        "outboard-ctl",
        "outboard-blk",
        "outboard-net",
        "outboard-console",
        "outboard-rng",
        "gdb",
    ],
};

const UP: Notes = Notes {
    statuses: &[
        (
            0,
            "The command's own, whatever it is; 128 and the signal's number if one ended it, 127 if \
             it could not be started. After a shell 0, if the guest was powered off.",
        ),
        (
            1,
            "The host failed, or the guest ended before the command did.",
        ),
        (2, "Bad usage."),
        (3, "The guest crashed or panicked."),
    ],
    files: &[(
        "$XDG_RUNTIME_DIR/outboard/NAME",
        "The directory of a machine, with the sockets of gdb and of the control API.",
    )],
    see_also: &[
        "outboard-gdb",
        "outboard-shell",
        "outboard-run",
        "virtiofsd",
    ],
    ..COMMAND
};

const REPLAY: Notes = Notes {
    statuses: &[
        (
            0,
            "All answers that can be compared are those of the recording.",
        ),
        (1, "An answer differs."),
        (2, "The recording cannot be replayed, or bad usage."),
    ],
    see_also: &["outboard-record", "outboard-check"],
    ..COMMAND
};

const CHECK: Notes = Notes {
    statuses: &[
        (0, "All checks that apply passed."),
        (1, "A check failed or could not be tried."),
        (2, "Nothing could be checked, or bad usage."),
    ],
    environment: &[(
        "NO_COLOR",
        "If it is set, the findings on a terminal have no colour.",
    )],
    files: &[],
    see_also: &["outboard", "outboard-trace", "outboard-replay"],
};

/// The notes of the page called `page`. A command of `outboard` that has none of its own ends
/// as all commands do.
pub fn of(page: &str) -> Notes {
    match page {
        "outboard" => TOP,
        "outboard-run" => RUN,
        "outboard-up" => UP,
        "outboard-replay" => REPLAY,
        "outboard-gdb" => seeing(&["outboard-up", "outboard-shell", "gdb"]),
        "outboard-shell" => seeing(&["outboard-up", "outboard-gdb"]),
        "outboard-check" => CHECK,
        "outboard-record" => seeing(&["outboard-replay", "outboard-trace"]),
        "outboard-trace" => seeing(&["outboard-explain", "outboard-record"]),
        "outboard-explain" => seeing(&["outboard-trace", "outboard-ctl"]),
        "outboard-ctl" => seeing(&["outboard-run", "outboard-explain"]),
        "outboard-doctor" => seeing(&["outboard-run"]),
        "outboard-new-backend" => seeing(&["outboard-check", "outboard-blk"]),
        "outboard-blk" | "outboard-net" | "outboard-console" | "outboard-rng" => BACKEND,
        _ => COMMAND,
    }
}

const fn seeing(see_also: &'static [&'static str]) -> Notes {
    Notes {
        see_also,
        ..COMMAND
    }
}
