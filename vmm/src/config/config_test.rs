use std::time::Duration;

use devices::vhost_user::{Address, Reconnect};
use proptest::prelude::*;

use super::*;

fn config(args: RunArgs) -> Result<Config, Error> {
    Config::try_from(RunArgs {
        kernel: args.kernel.or(Some("k".into())),
        ..args
    })
}

fn with_devices(specs: &[&str]) -> Result<Config, Error> {
    config(RunArgs {
        device: specs.iter().map(|s| s.to_string()).collect(),
        ..Default::default()
    })
}

#[test]
fn sizes_are_mebibytes_unless_they_say_otherwise() {
    for (text, bytes) in [
        ("64", 64 << 20),
        ("512M", 512 << 20),
        ("6g", 6 << 30),
        ("32768K", 32 << 20),
    ] {
        assert_eq!(memory(text).unwrap(), bytes, "{text}");
    }
    for text in ["", "M", "1.5G", "-1", "12X", "0x10M"] {
        assert!(
            matches!(memory(text), Err(Error::MemorySyntax(_))),
            "{text}"
        );
    }
    for text in ["31M", "0", "33000K", "2000000T", "99999999999G", "2T"] {
        assert!(
            matches!(memory(text), Err(Error::MemorySize { .. })),
            "{text}"
        );
    }
}

#[test]
fn vcpus_are_1_to_64() {
    for (asked, ok) in [(0, false), (1, true), (64, true), (65, false), (257, false)] {
        let args = RunArgs {
            cpus: Some(asked),
            ..Default::default()
        };
        assert_eq!(config(args).is_ok(), ok, "{asked}");
    }
}

#[test]
fn devices_get_a_name_of_their_type() {
    let config = with_devices(&[
        "blk,socket=/a",
        "blk,socket=/b,queues=4,queue-size=128",
        "net,socket=/c,id=lan",
    ]);
    let devices = config.unwrap().devices;
    let ids: Vec<_> = devices
        .iter()
        .map(|device| device.options.id.as_str())
        .collect();
    assert_eq!(ids, ["blk0", "blk1", "lan"]);
    assert_eq!(
        (devices[1].options.queues, devices[1].options.queue_size),
        (Some(4), Some(128))
    );
}

#[test]
fn backends_are_waited_for_unless_told_otherwise() {
    let config = with_devices(&[
        "blk,socket=/a",
        "blk,socket=/b,reconnect=off",
        "net,socket=/c,reconnect=30",
    ]);
    let devices = config.unwrap().devices;
    let policies: Vec<_> = devices
        .iter()
        .map(|device| device.options.reconnect)
        .collect();
    let half_a_minute = Reconnect::For(Duration::from_secs(30));
    assert_eq!(
        policies,
        [Reconnect::Forever, Reconnect::Off, half_a_minute]
    );
    let problem = with_devices(&["blk,socket=/a,reconnect=never"]).unwrap_err();
    assert!(problem.to_string().contains("takes off or seconds"));
}

#[test]
fn backends_may_be_given_more_time() {
    let specs = [
        "blk,socket=/a",
        "blk,deadline=60,socket=/b",
        "blk,exec=a",
        "blk,deadline=7,exec=a",
    ];
    let devices = with_devices(&specs).unwrap().devices;
    let deadlines = devices.iter().map(|device| {
        let options = &device.options;
        (
            options.deadline.as_secs(),
            options.connect_deadline.as_secs(),
        )
    });
    let deadlines: Vec<_> = deadlines.collect();
    assert_eq!(deadlines, [(5, 2), (60, 60), (5, 5), (7, 7)]);
    let problem = with_devices(&["blk,socket=/a,deadline=0"]).unwrap_err();
    assert!(problem.to_string().contains("from 1 to 65535"));
}

#[test]
fn types_have_names_and_numbers() {
    let config = with_devices(&["type=26,socket=/a", "26,socket=/b", "fs,socket=/c"]);
    let names: Vec<_> = config.unwrap().devices.into_iter().collect();
    let names: Vec<_> = names.iter().map(|device| &*device.options.id).collect();
    assert_eq!(names, ["fs0", "fs1", "fs2"]);
}

#[test]
fn backends_may_connect_to_the_machine() {
    let config = with_devices(&["blk,listen=/a", "blk,socket=/b"]).unwrap();
    let listens: Vec<_> = config
        .devices
        .iter()
        .map(|device| matches!(device.options.address, Address::Listen(_)))
        .collect();
    assert_eq!(listens, [true, false]);
    let problem = with_devices(&["blk,socket=/a,listen=/b"]).unwrap_err();
    assert!(problem.to_string().contains("two backends"));
}

#[test]
fn features_can_be_left_out() {
    let config = with_devices(&[
        "blk,socket=/a,features=-event_idx,-indirect,queues=2",
        "blk,features=-flush,socket=/b",
    ]);
    let devices = config.unwrap().devices;
    let masked: Vec<_> = devices
        .iter()
        .map(|device| device.options.masked_features)
        .collect();
    assert_eq!(masked, [1 << 29 | 1 << 28, 1 << 9]);
    let device = with_devices(&["blk,socket=/a,features=-mq,-reply_ack,-protocol_mq"]).unwrap();
    let options = &device.devices[0].options;
    assert_eq!(options.masked_features, 1 << 12);
    let protocol: Vec<_> = options.masked_protocol.iter_names().collect();
    assert_eq!(protocol.len(), 2);
    assert_eq!(devices[0].options.queues, Some(2));
    let problem = |spec| with_devices(&[spec]).unwrap_err().to_string();
    assert!(problem("blk,socket=/a,features=event_idx").contains("takes -NAME"));
    assert!(problem("blk,socket=/a,features=-csum").contains("not a feature of blk"));
    assert!(problem("blk,socket=/a,-flush").contains("key=value"));
}

#[test]
fn commands_may_have_commas_between_quotes() {
    let specs = [
        r#"blk,exec="qsd a=b,c={listen-fd} 'd e'",id=disk"#,
        "rng,exec=rng-backend --socket-path {socket},queues=1",
    ];
    let devices = with_devices(&specs).unwrap().devices;
    let commands: Vec<_> = devices
        .iter()
        .map(|device| device.command.as_ref().unwrap().arguments("7").collect())
        .collect::<Vec<Vec<_>>>();
    assert_eq!(commands[0], ["a=b,c=7", "d e"]);
    assert_eq!(commands[1], ["--socket-path", "7"]);
    assert_eq!(devices[0].options.id, "disk");
    let problem = |spec| with_devices(&[spec]).unwrap_err().to_string();
    assert!(problem("blk,exec=a b,c").contains("between double quotes"));
    assert!(problem("blk,exec=\"a").contains("double quote"));
    assert!(problem("blk,exec='a").contains("ends within quotes"));
    assert!(problem("blk,exec=a,socket=/b").contains("two backends"));
}

#[test]
fn bad_devices_say_what_is_wrong() {
    let problem = |specs: &[&str]| with_devices(specs).unwrap_err().to_string();
    assert!(problem(&["blk"]).contains("add socket=PATH"));
    assert!(problem(&["blk,socket="]).contains("key=value"));
    assert!(problem(&["blk,socket=/a,color=red"]).contains("\"color\" is not known"));
    assert!(problem(&["blk,socket=/a,queues=x"]).contains("takes a number"));
    assert!(problem(&["floppy,socket=/a"]).contains("floppy"));
    let twice = ["blk,socket=/a,id=x", "net,socket=/b,id=x"];
    assert!(problem(&twice).contains("two devices are named \"x\""));
    assert!(problem(&["blk,socket=/a"; 14]).contains("14 devices"));
}

#[test]
fn the_command_line_wins_over_the_file() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = "kernel = \"a\"\nmemory = \"1G\"\ncpus = 2\ndevice = [\"rng,socket=/r\"]\nsymbols = \"vmlinux\"\ngdb = \"1234\"\non-reboot = \"exit\"\n";
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let args = RunArgs {
        config: Some(file.path().to_owned()),
        cpus: Some(4),
        device: vec!["blk,socket=/b".into()],
        ..Default::default()
    };
    let config = Config::try_from(args).unwrap();
    assert_eq!(
        (config.kernel, config.memory, config.cpus),
        ("a".into(), 1 << 30, 4)
    );
    assert_eq!(config.on_reboot, OnReboot::Exit);
    assert_eq!(config.symbols, Some("vmlinux".into()));
    assert_eq!(config.devices.len(), 2);
}

#[test]
fn unknown_keys_in_the_file_are_refused() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, b"cpus = 1\nkernle = \"a\"\n").unwrap();
    let args = RunArgs {
        config: Some(file.path().to_owned()),
        ..Default::default()
    };
    let error = config(args).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("line 2: unknown field `kernle`"), "{text}");
}

#[test]
fn gdb_is_waited_for_at_the_start_or_at_the_kernel() {
    for (text, expected) in [
        ("true", Ok(Some(GdbWait::Start))),
        ("false", Ok(None)),
        ("\"start\"", Ok(Some(GdbWait::Start))),
        ("\"kernel\"", Ok(Some(GdbWait::Kernel))),
        ("\"never\"", Err(())),
        ("1", Err(())),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("kernel = \"a\"\ngdb = \"1234\"\ngdb-wait = {text}\n");
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let args = RunArgs {
            config: Some(file.path().to_owned()),
            ..Default::default()
        };
        let wait = Config::try_from(args).map(|config| config.gdb_wait);
        let wait = wait.map_err(|error| {
            let said = error.to_string();
            assert!(said.contains("line 3: true, false, "), "{said}");
        });
        assert_eq!(wait, expected, "{text}");
    }
}

#[test]
fn waiting_for_gdb_needs_an_address() {
    let args = RunArgs {
        gdb_wait: Some(GdbWait::Start),
        ..Default::default()
    };
    assert!(matches!(config(args), Err(Error::WaitWithoutGdb)));
    let args = RunArgs {
        symbols: Some("vmlinux".into()),
        ..Default::default()
    };
    assert!(matches!(config(args), Err(Error::SymbolsWithoutGdb)));
    let args = RunArgs {
        rings: true,
        ..Default::default()
    };
    assert!(matches!(config(args), Err(Error::RingsAlone)));
    assert!(matches!(
        Config::try_from(RunArgs::default()),
        Err(Error::NoKernel)
    ));
}

/// What is given in a file of this text, and on a command line.
fn in_file(text: &str, args: RunArgs) -> Result<Config, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    Config::try_from(RunArgs {
        config: Some(file.path().to_owned()),
        ..args
    })
}

#[test]
fn an_error_has_the_line_of_its_key() {
    let file = "kernel = \"a\"\ndevice = [\n  \"blk,socket=/a\",\n  \"blk\",\n]\n";
    for (text, line, part) in [
        ("kernel = \"a\"\n\ncpus = 65\n", 3, "65 vCPUs"),
        ("memory = \"1\"\nkernel = \"a\"\n", 1, "of memory"),
        ("kernel = \"a\"\ngdb-kill = true\n", 2, "--gdb-kill needs"),
        (
            "kernel = \"a\"\ngdb-wait = \"kernel\"\n",
            2,
            "--gdb-wait needs",
        ),
        (
            "kernel = \"a\"\non-panic = \"x\"\n",
            2,
            "stop, reset or exit",
        ),
        (file, 4, "it has no backend"),
    ] {
        let error = in_file(text, RunArgs::default()).unwrap_err();
        let said = host_io::errors::chain(&error);
        assert!(said.contains(&format!(", line {line}: ")), "{said}");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn an_error_of_the_command_line_has_no_line() {
    let args = RunArgs {
        cpus: Some(65),
        ..RunArgs::default()
    };
    let error = in_file("kernel = \"a\"\ncpus = 2\n", args).unwrap_err();
    assert!(matches!(error, Error::Cpus(65)), "{error}");
    let args = RunArgs {
        device: vec!["blk".into()],
        ..RunArgs::default()
    };
    let error = in_file("kernel = \"a\"\ndevice = [\"rng,socket=/r\"]\n", args).unwrap_err();
    assert!(matches!(error, Error::Device { .. }), "{error}");
}

/// Any text that a command line can have.
fn text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| text.replace('\0', ""))
}

fn keys() -> impl Strategy<Value = Keys> {
    use proptest::option::of;
    let path = || of(text().prop_map(PathBuf::from));
    let wait = prop_oneof![
        any::<bool>().prop_map(GdbWaitKey::Start),
        Just(GdbWaitKey::Where(GdbWait::Start)),
        Just(GdbWaitKey::Where(GdbWait::Kernel)),
    ];
    let reboot = prop_oneof![Just(OnReboot::Reset), Just(OnReboot::Exit)];
    let format = prop_oneof![Just(log::Format::Text), Just(log::Format::Json)];
    let texts = proptest::array::uniform7(of(text()));
    let paths = (path(), path(), path(), path(), path(), path(), path());
    let devices = proptest::collection::vec(text(), 0..4);
    let numbers = (of(0..=i64::MAX as u64), of(any::<u32>()));
    let choices = (
        of(wait),
        of(reboot),
        of(format),
        of(any::<bool>()),
        of(any::<bool>()),
    );
    (texts, paths, devices, numbers, choices).prop_map(
        |(texts, paths, device, numbers, choices)| {
            let [cmdline, memory, serial, gdb, on_panic, qmp, log] = texts;
            let (kernel, initrd, symbols, api, trace, faults, log_file) = paths;
            let ((cpus, seed), (gdb_wait, on_reboot, log_format, gdb_kill, rings)) =
                (numbers, choices);
            Keys {
                kernel,
                initrd,
                cmdline,
                cpus,
                memory,
                device,
                serial,
                gdb,
                gdb_wait,
                gdb_kill,
                symbols,
                on_reboot,
                on_panic,
                api,
                qmp,
                trace,
                faults,
                seed,
                rings,
                log,
                log_file,
                log_format,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(keys in keys()) {
        let text = toml::to_string(&keys).unwrap();
        prop_assert_eq!(toml::from_str::<Keys>(&text).unwrap(), keys);
    }
}
