use super::*;

fn error(text: &str) -> String {
    FaultFile::parse(text).unwrap_err().to_string()
}

#[test]
fn a_file_is_what_its_rules_print() {
    let text = "[[fault]]\ndevice = 'a \"b\"'\nmessage = \"GET_CONFIG\"\nfrom = \"backend\"\nafter = 2\nnth = 3\n\
                do = \"delay\"\nmilliseconds = 250\n[[fault]]\nkick = 1\nprobability = 0.25\n\
                do = \"drop\"\n[[fault]]\nmessage = \"any\"\nevery = 1\ndo = \"corrupt\"\nbyte = 9\n\
                [[fault]]\nkick = 0\nnth = 1\ndo = \"shrink\"\nregion = 1\nbytes = 4096\n\
                [[fault]]\nmessage = \"any\"\nnth = 1\ndo = \"fill\"\n";
    let file = FaultFile::parse(&format!("seed = 5\n{text}")).unwrap();
    assert_eq!(file.seed, Some(5));
    let printed: String = file.rules.iter().map(Rule::to_string).collect();
    assert_eq!(printed, text);
}

#[test]
fn errors_say_the_line() {
    for (lines, line, why) in [
        (
            "do = \"drop\"\nnth = 1",
            3,
            "a fault needs exactly one of `message`",
        ),
        (
            "kick = 0\ncall = 0\nnth = 1\ndo = \"drop\"",
            3,
            "a fault needs exactly one of `message`",
        ),
        (
            "kick = 0\nfrom = \"backend\"\nnth = 1\ndo = \"drop\"",
            3,
            "only `message` can have",
        ),
        (
            "kick = 0\nnth = 1\nevery = 2\ndo = \"drop\"",
            3,
            "a fault needs exactly one of `nth`",
        ),
        (
            "kick = 0\ndo = \"drop\"",
            3,
            "a fault needs exactly one of `nth`",
        ),
        ("kick = 0\nnth = 0\ndo = \"drop\"", 3, "count from 1"),
        (
            "kick = 0\nprobability = 1.5\ndo = \"drop\"",
            3,
            "from 0.0 to 1.0",
        ),
        (
            "kick = 0\nnth = 1\ndo = \"delay\"",
            3,
            "needs `milliseconds`",
        ),
        (
            "kick = 0\nnth = 1\ndo = \"drop\"\nbytes = 2",
            3,
            "`bytes` does not belong",
        ),
        (
            "kick = 0\nnth = 1\ndo = \"corrupt\"",
            3,
            "only a message can have",
        ),
        (
            "kick = 0\nnth = 1\ndo = \"fill\"",
            3,
            "only a message can have",
        ),
        (
            "kick = 0\nnth = 1\ndo = \"stop\"\nregion = 0",
            3,
            "`region` does not belong",
        ),
        (
            "kick = 0\nnth = 1\ndo = \"shrink\"\nbytes = 0",
            3,
            "as large as before",
        ),
        (
            "message = \"GET_CONFIC\"\nnth = 1\ndo = \"cut\"",
            3,
            "there is no message",
        ),
    ] {
        let error = error(&format!("seed = 1\n\n[[fault]]\n{lines}\n"));
        let begin = format!("line {line}: ");
        assert!(
            error.starts_with(&begin) && error.contains(why),
            "{lines}: {error}"
        );
    }
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let error = error("[[fault]]\nkick = 0\nnht = 1\ndo = \"drop\"\n");
    assert!(
        error.starts_with("line 3: ") && error.contains("nht"),
        "{error}"
    );
    let error = self::error("[[fault]]\nkick = 0\nnth = 1\ndo = \"dorp\"\n");
    assert!(
        error.starts_with("line 4: ") && error.contains("dorp"),
        "{error}"
    );
}

#[test]
fn an_unknown_device_is_an_error_with_the_line_of_its_rule() {
    let text = "seed = 1\n[[fault]]\ndevice = \"blk0\"\nkick = 0\nnth = 1\ndo = \"drop\"\n\
                [[fault]]\ndevice = \"blk1\"\nkick = 0\nnth = 1\ndo = \"drop\"\n";
    let file = FaultFile::parse(text).unwrap();
    let check = |devices: &[&str]| {
        let devices: Vec<_> = devices.iter().copied().map(String::from).collect();
        file.check_devices(&devices)
            .map_err(|error| error.to_string())
    };
    assert_eq!(check(&["blk1", "blk0"]), Ok(()));
    let error = "line 7: there is no device \"blk1\"; there are blk0, net0";
    assert_eq!(check(&["blk0", "net0"]), Err(error.into()));
    let error = "line 2: there is no device \"blk0\"; there are none";
    assert_eq!(check(&[]), Err(error.into()));
}
