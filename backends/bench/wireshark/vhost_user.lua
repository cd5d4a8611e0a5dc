-- Wireshark's view of `outboard trace` files (.pcapng).
--
--   wireshark -X lua_script:backends/bench/wireshark/vhost_user.lua trace.pcapng
--
-- or copy it to ~/.local/lib/wireshark/plugins/. Filters: vhost_user.name == "SET_MEM_TABLE",
-- vhost_user.latency > 0.001, vhost_user.file == 3, vhost_user.malformed.
--
-- The packets' layout is that of backends/bench/src/trace/format/packet.rs.

local proto = Proto("vhost_user", "vhost-user")

local channels = { [0] = "requests of the frontend", [1] = "requests of the backend" }
local sides = { [0] = "frontend", [1] = "backend" }
local kinds = { [0] = "message", [1] = "no whole message", [2] = "event" }

local device_types = {
    [1] = "net", [2] = "blk", [3] = "console", [4] = "rng", [5] = "balloon", [8] = "scsi",
    [9] = "9p", [16] = "gpu", [18] = "input", [19] = "vsock", [20] = "crypto", [23] = "iommu",
    [24] = "mem", [25] = "sound", [26] = "fs", [27] = "pmem", [28] = "rpmb", [32] = "scmi",
    [34] = "i2c", [36] = "can", [41] = "gpio", [45] = "spi",
}

local frontend_names = {
    [1] = "GET_FEATURES", [2] = "SET_FEATURES", [3] = "SET_OWNER", [4] = "RESET_OWNER",
    [5] = "SET_MEM_TABLE", [6] = "SET_LOG_BASE", [7] = "SET_LOG_FD", [8] = "SET_VRING_NUM",
    [9] = "SET_VRING_ADDR", [10] = "SET_VRING_BASE", [11] = "GET_VRING_BASE",
    [12] = "SET_VRING_KICK", [13] = "SET_VRING_CALL", [14] = "SET_VRING_ERR",
    [15] = "GET_PROTOCOL_FEATURES", [16] = "SET_PROTOCOL_FEATURES", [17] = "GET_QUEUE_NUM",
    [18] = "SET_VRING_ENABLE", [19] = "SEND_RARP", [20] = "NET_SET_MTU",
    [21] = "SET_BACKEND_REQ_FD", [22] = "IOTLB_MSG", [23] = "SET_VRING_ENDIAN",
    [24] = "GET_CONFIG", [25] = "SET_CONFIG", [26] = "CREATE_CRYPTO_SESSION",
    [27] = "CLOSE_CRYPTO_SESSION", [28] = "POSTCOPY_ADVISE", [29] = "POSTCOPY_LISTEN",
    [30] = "POSTCOPY_END", [31] = "GET_INFLIGHT_FD", [32] = "SET_INFLIGHT_FD",
    [33] = "GPU_SET_SOCKET", [34] = "RESET_DEVICE", [35] = "VRING_KICK",
    [36] = "GET_MAX_MEM_SLOTS", [37] = "ADD_MEM_REG", [38] = "REM_MEM_REG",
    [39] = "SET_STATUS", [40] = "GET_STATUS", [41] = "GET_SHARED_OBJECT",
    [42] = "SET_DEVICE_STATE_FD", [43] = "CHECK_DEVICE_STATE", [44] = "GET_SHMEM_CONFIG",
}

local backend_names = {
    [1] = "BACKEND_IOTLB_MSG", [2] = "BACKEND_CONFIG_CHANGE_MSG",
    [3] = "BACKEND_VRING_HOST_NOTIFIER_MSG", [4] = "BACKEND_VRING_CALL",
    [5] = "BACKEND_VRING_ERR", [6] = "BACKEND_SHARED_OBJECT_ADD",
    [7] = "BACKEND_SHARED_OBJECT_REMOVE", [8] = "BACKEND_SHARED_OBJECT_LOOKUP",
    [9] = "BACKEND_SHMEM_MAP", [10] = "BACKEND_SHMEM_UNMAP",
}

local feature_names = {
    [24] = "NOTIFY_ON_EMPTY", [26] = "LOG_ALL", [27] = "ANY_LAYOUT", [28] = "INDIRECT_DESC",
    [29] = "EVENT_IDX", [30] = "PROTOCOL_FEATURES", [32] = "VERSION_1",
    [33] = "ACCESS_PLATFORM", [34] = "RING_PACKED", [35] = "IN_ORDER",
    [36] = "ORDER_PLATFORM", [37] = "SR_IOV", [38] = "NOTIFICATION_DATA",
    [39] = "NOTIF_CONFIG_DATA", [40] = "RING_RESET", [41] = "ADMIN_VQ",
}

-- Features of one device type each, by device ID.
local own_feature_names = {
    [1] = {
        [0] = "NET_CSUM", [1] = "NET_GUEST_CSUM", [2] = "NET_CTRL_GUEST_OFFLOADS",
        [3] = "NET_MTU", [5] = "NET_MAC", [6] = "NET_GSO", [7] = "NET_GUEST_TSO4",
        [8] = "NET_GUEST_TSO6", [9] = "NET_GUEST_ECN", [10] = "NET_GUEST_UFO",
        [11] = "NET_HOST_TSO4", [12] = "NET_HOST_TSO6", [13] = "NET_HOST_ECN",
        [14] = "NET_HOST_UFO", [15] = "NET_MRG_RXBUF", [16] = "NET_STATUS",
        [17] = "NET_CTRL_VQ", [18] = "NET_CTRL_RX", [19] = "NET_CTRL_VLAN",
        [20] = "NET_CTRL_RX_EXTRA", [21] = "NET_GUEST_ANNOUNCE", [22] = "NET_MQ",
        [23] = "NET_CTRL_MAC_ADDR", [50] = "NET_DEVICE_STATS", [52] = "NET_VQ_NOTF_COAL",
        [53] = "NET_NOTF_COAL", [54] = "NET_GUEST_USO4", [55] = "NET_GUEST_USO6",
        [56] = "NET_HOST_USO", [57] = "NET_HASH_REPORT", [59] = "NET_GUEST_HDRLEN",
        [60] = "NET_RSS", [61] = "NET_RSC_EXT", [62] = "NET_STANDBY",
        [63] = "NET_SPEED_DUPLEX",
    },
    [2] = {
        [1] = "BLK_SIZE_MAX", [2] = "BLK_SEG_MAX", [4] = "BLK_GEOMETRY", [5] = "BLK_RO",
        [6] = "BLK_BLK_SIZE", [9] = "BLK_FLUSH", [10] = "BLK_TOPOLOGY",
        [11] = "BLK_CONFIG_WCE", [12] = "BLK_MQ", [13] = "BLK_DISCARD",
        [14] = "BLK_WRITE_ZEROES", [16] = "BLK_SECURE_ERASE", [17] = "BLK_ZONED",
    },
    [3] = { [0] = "CONSOLE_SIZE", [1] = "CONSOLE_MULTIPORT", [2] = "CONSOLE_EMERG_WRITE" },
    [8] = { [0] = "SCSI_INOUT", [1] = "SCSI_HOTPLUG", [2] = "SCSI_CHANGE", [3] = "SCSI_T10_PI" },
    [19] = {
        [0] = "VSOCK_STREAM", [1] = "VSOCK_SEQPACKET", [2] = "VSOCK_NO_IMPLIED_STREAM",
    },
    [26] = { [0] = "FS_NOTIFICATION" },
}

local protocol_feature_names = {
    [0] = "MQ", [1] = "LOG_SHMFD", [2] = "RARP", [3] = "REPLY_ACK", [4] = "MTU",
    [5] = "BACKEND_REQ", [6] = "CROSS_ENDIAN", [7] = "CRYPTO_SESSION", [8] = "PAGEFAULT",
    [9] = "CONFIG", [10] = "BACKEND_SEND_FD", [11] = "HOST_NOTIFIER",
    [12] = "INFLIGHT_SHMFD", [13] = "RESET_DEVICE", [14] = "INBAND_NOTIFICATIONS",
    [15] = "CONFIGURE_MEM_SLOTS", [16] = "STATUS", [17] = "XEN_MMAP",
    [18] = "SHARED_OBJECT", [19] = "DEVICE_STATE", [20] = "GET_VRING_BASE_INFLIGHT",
    [21] = "GPA_ADDRESSES", [22] = "SHMEM",
}

local status_names = {
    [0] = "ACKNOWLEDGE", [1] = "DRIVER", [2] = "DRIVER_OK", [3] = "FEATURES_OK",
    [6] = "DEVICE_NEEDS_RESET", [7] = "FAILED",
}

local f = {
    kind = ProtoField.uint8("vhost_user.kind", "Kind", base.DEC, kinds),
    from = ProtoField.uint8("vhost_user.from", "From", base.DEC, sides, 0x1),
    channel = ProtoField.uint8("vhost_user.channel", "Channel", base.DEC, channels, 0x2),
    connection = ProtoField.uint32("vhost_user.connection", "Connection"),
    latency = ProtoField.double("vhost_user.latency", "Seconds since the request"),
    device_type = ProtoField.uint32("vhost_user.type", "Device type", base.DEC, device_types),
    file = ProtoField.uint32("vhost_user.file", "File"),
    file_kind = ProtoField.string("vhost_user.file.kind", "Kind of file"),
    request = ProtoField.uint32("vhost_user.request", "Request"),
    name = ProtoField.string("vhost_user.name", "Name"),
    flags = ProtoField.uint32("vhost_user.flags", "Flags", base.HEX),
    version = ProtoField.uint32("vhost_user.flags.version", "Version", base.DEC, nil, 0x3),
    reply = ProtoField.bool("vhost_user.flags.reply", "Reply", 32, nil, 0x4),
    need_reply = ProtoField.bool("vhost_user.flags.need_reply", "Needs a reply", 32, nil, 0x8),
    size = ProtoField.uint32("vhost_user.size", "Size of payload"),
    payload = ProtoField.bytes("vhost_user.payload", "Payload"),
    bytes = ProtoField.bytes("vhost_user.bytes", "Bytes"),
    event = ProtoField.string("vhost_user.event", "Event"),
    region = ProtoField.none("vhost_user.region", "Memory region"),
    features = ProtoField.uint64("vhost_user.features", "Features", base.HEX),
    protocol = ProtoField.uint64("vhost_user.protocol_features", "Protocol features", base.HEX),
    status = ProtoField.uint64("vhost_user.status", "Status", base.HEX),
    bit = ProtoField.string("vhost_user.bit", "Bit"),
    index = ProtoField.uint64("vhost_user.index", "Ring"),
    no_file = ProtoField.bool("vhost_user.no_file", "No file"),
    num = ProtoField.uint64("vhost_user.num", "Number"),
    base = ProtoField.uint64("vhost_user.base", "Base"),
    enable = ProtoField.uint64("vhost_user.enable", "Enable"),
    result = ProtoField.uint64("vhost_user.result", "Result"),
    guest = ProtoField.uint64("vhost_user.guest", "Guest address", base.HEX),
    length = ProtoField.uint64("vhost_user.length", "Size", base.HEX),
    user = ProtoField.uint64("vhost_user.user", "User address", base.HEX),
    offset = ProtoField.uint64("vhost_user.offset", "Offset", base.HEX),
    descriptor = ProtoField.uint64("vhost_user.descriptor", "Descriptor area", base.HEX),
    used = ProtoField.uint64("vhost_user.used", "Used ring", base.HEX),
    available = ProtoField.uint64("vhost_user.available", "Available ring", base.HEX),
    log = ProtoField.uint64("vhost_user.log", "Log address", base.HEX),
    number = ProtoField.uint64("vhost_user.number", "Number"),
}
proto.fields = f

local malformed = ProtoExpert.new("vhost_user.malformed", "The payload is too short for its message",
    expert.group.MALFORMED, expert.severity.ERROR)
proto.experts = { malformed }

-- Shapes: lists of { field, bytes } in the order of the payload. A bare number is padding.
local vring = function(what) return { { f.index, 4 }, { what, 4 } } end
local ring_file = { { "ring_file", 8 } }
local region = { { f.guest, 8 }, { f.length, 8 }, { f.user, 8 }, { f.offset, 8 } }
local single_region = { 8, { f.guest, 8 }, { f.length, 8 }, { f.user, 8 }, { f.offset, 8 } }
local config = { { f.offset, 4 }, { f.length, 4 }, { f.number, 4 }, { "rest", 0 } }
local inflight = { { f.length, 8 }, { f.offset, 8 }, { f.num, 2 }, { f.number, 2 } }
local result = { { f.result, 8 } }
local bits = function(what) return { { what, 8 } } end
local iotlb = { { f.guest, 8 }, { f.length, 8 }, { f.user, 8 }, { f.num, 1 }, { f.number, 1 } }
local uuid = { { f.bytes, 16 } }
local mmap = {
    { f.num, 1 }, 7, { f.guest, 8 }, { f.offset, 8 }, { f.length, 8 }, { f.number, 8 },
}

local request_shapes = {
    [2] = bits("features"), [16] = bits("protocol"), [39] = bits("status"),
    [5] = { { f.num, 4 }, 4, { "regions", 0 } },
    [6] = { { f.length, 8 }, { f.offset, 8 } },
    [8] = vring(f.num), [10] = vring(f.base), [11] = vring(f.num), [18] = vring(f.enable),
    [23] = vring(f.num), [35] = vring(f.num),
    [9] = {
        { f.index, 4 }, { f.number, 4 }, { f.descriptor, 8 }, { f.used, 8 },
        { f.available, 8 }, { f.log, 8 },
    },
    [12] = ring_file, [13] = ring_file, [14] = ring_file,
    [19] = { { f.bytes, 6 } },
    [20] = { { f.num, 8 } },
    [22] = iotlb,
    [24] = config, [25] = config,
    [31] = inflight, [32] = inflight,
    [37] = single_region, [38] = single_region,
    [41] = uuid,
    [42] = { { f.num, 4 }, { f.number, 4 } },
}
local reply_shapes = {
    [1] = bits("features"), [15] = bits("protocol"), [40] = bits("status"),
    [17] = { { f.num, 8 } }, [36] = { { f.num, 8 } },
    [11] = vring(f.base), [24] = config, [31] = inflight,
    [5] = { { "rest", 0 } }, [6] = { { "rest", 0 } }, [26] = { { "rest", 0 } },
    [44] = { { f.num, 4 }, 4, { "rest", 0 } },
}
local backend_shapes = {
    [1] = iotlb, [6] = uuid, [7] = uuid, [8] = uuid,
    [3] = { { f.index, 8 }, { f.length, 8 }, { f.offset, 8 } },
    [4] = vring(f.num), [5] = vring(f.num), [9] = mmap, [10] = mmap,
}

local function bit_names(value, names, own)
    local found = {}
    for bit = 0, 63 do
        local is_set = value:rshift(bit):band(1) == UInt64(1)
        if is_set then
            local name = names[bit] or (own and own[bit]) or ("bit " .. bit)
            table.insert(found, name)
        end
    end
    return found
end

-- A set of bits; returns its names for the summary.
local function add_bits(tree, field, range, names, own)
    local item = tree:add_le(field, range)
    local found = bit_names(range:le_uint64(), names, own)
    for _, name in ipairs(found) do
        item:add(f.bit, range, name)
    end
    local text = table.concat(found, "|")
    item:append_text(" (" .. text .. ")")
    return text
end

local function add_regions(tree, payload, at)
    while at + 32 <= payload:len() do
        local item = tree:add(f.region, payload(at, 32))
        for place, part in ipairs(region) do
            item:add_le(part[1], payload(at + 8 * (place - 1), 8))
        end
        at = at + 32
    end
    return at
end

local function add_ring_file(tree, range)
    tree:add_le(f.index, range(0, 1))
    if range(1, 1):uint() % 2 == 1 then
        tree:add(f.no_file, range(1, 1), true)
    end
    return "ring " .. range(0, 1):uint()
end

-- Adds the fields of a payload; returns a summary.
local function add_payload(tree, payload, shape, device_type)
    local at, summary = 0, {}
    for _, part in ipairs(shape) do
        if type(part) == "number" then
            at = at + part
        else
            local what, len = part[1], part[2]
            if at + len > payload:len() then
                tree:add_proto_expert_info(malformed)
                table.insert(summary, "[malformed]")
                return summary
            end
            if what == "rest" then
                if at < payload:len() then
                    tree:add(f.payload, payload(at))
                end
                return summary
            elseif what == "regions" then
                at = add_regions(tree, payload, at)
            elseif what == "ring_file" then
                table.insert(summary, add_ring_file(tree, payload(at, len)))
            elseif what == "features" then
                local own = own_feature_names[device_type]
                table.insert(summary,
                    add_bits(tree, f.features, payload(at, len), feature_names, own))
            elseif what == "protocol" then
                table.insert(summary,
                    add_bits(tree, f.protocol, payload(at, len), protocol_feature_names))
            elseif what == "status" then
                table.insert(summary, add_bits(tree, f.status, payload(at, len), status_names))
            elseif what == f.bytes then
                tree:add(what, payload(at, len))
            else
                tree:add_le(what, payload(at, len))
                if what == f.index then
                    table.insert(summary, "ring " .. tostring(payload(at, len):le_uint64()))
                elseif what == f.result then
                    table.insert(summary, "result " .. tostring(payload(at, len):le_uint64()))
                end
            end
            at = at + len
        end
    end
    return summary
end

-- The files that came with a message; returns where they end.
local function add_files(tree, buffer, count, summary)
    local at = 24
    for _ = 1, count do
        local len = buffer(at + 4, 2):le_uint()
        local item = tree:add_le(f.file, buffer(at, 4))
        local kind = len > 0 and buffer(at + 6, len):string() or ""
        if len > 0 then
            item:add(f.file_kind, buffer(at + 6, len))
        end
        item:append_text(" (" .. kind .. ")")
        table.insert(summary, buffer(at, 4):le_uint() .. " " .. kind)
        at = at + 6 + len
    end
    return at
end

-- Padding at an end may be left out.
local function least_size(shape)
    local at, size = 0, 0
    for _, part in ipairs(shape) do
        local len = type(part) == "number" and part or part[2]
        at = at + len
        if type(part) ~= "number" and len > 0 then
            size = at
        end
    end
    return size
end

local function dissect_message(tree, wire, channel, device_type)
    local request = wire(0, 4):le_uint()
    local flags = wire(4, 4):le_uint()
    local is_reply = math.floor(flags / 4) % 2 == 1
    local names = channel == 1 and backend_names or frontend_names
    local name = names[request] or ("unknown request " .. request)
    tree:add_le(f.request, wire(0, 4)):append_text(" (" .. name .. ")")
    tree:add(f.name, wire(0, 4), name)
    local flags_tree = tree:add_le(f.flags, wire(4, 4))
    flags_tree:add_le(f.version, wire(4, 4))
    flags_tree:add_le(f.reply, wire(4, 4))
    flags_tree:add_le(f.need_reply, wire(4, 4))
    tree:add_le(f.size, wire(8, 4))
    local info = name .. (is_reply and " reply" or "")
    local shape
    if channel == 1 then
        shape = is_reply and result or backend_shapes[request]
    elseif is_reply then
        shape = reply_shapes[request] or (names[request] and result)
    else
        shape = request_shapes[request]
    end
    if wire:len() > 12 then
        local payload = wire(12)
        local body = tree:add(f.payload, payload)
        local summary = add_payload(body, payload:tvb(), shape or { { "rest", 0 } }, device_type)
        if #summary > 0 then
            info = info .. " " .. table.concat(summary, " ")
        end
    elseif shape and not is_reply and least_size(shape) > 0 then
        -- A reply without a payload is a refusal.
        tree:add_proto_expert_info(malformed)
        info = info .. " [malformed]"
    end
    return info
end

function proto.dissector(buffer, pinfo, root)
    pinfo.cols.protocol = "vhost-user"
    if buffer:len() < 24 or buffer(0, 1):uint() ~= 1 then
        return 0
    end
    local tree = root:add(proto, buffer())
    local kind = buffer(1, 1):uint()
    local from = buffer(2, 1):uint() % 2
    local channel = math.floor(buffer(2, 1):uint() / 2) % 2
    local device_type = buffer(16, 4):le_uint()
    tree:add(f.kind, buffer(1, 1))
    tree:add_le(f.connection, buffer(4, 4))
    if device_type ~= 0 then
        tree:add_le(f.device_type, buffer(16, 4))
    end
    if kind == 2 then
        local text = buffer(24):string()
        tree:add(f.event, buffer(24), text)
        pinfo.cols.info = text
        return buffer:len()
    end
    tree:add(f.from, buffer(2, 1))
    tree:add(f.channel, buffer(2, 1))
    pinfo.cols.src = sides[from]
    pinfo.cols.dst = sides[1 - from]
    local latency = buffer(8, 8):le_uint64()
    if latency ~= UInt64(0xffffffff, 0xffffffff) then
        tree:add(f.latency, buffer(8, 8), latency:tonumber() / 1e9)
    end
    local files = {}
    local at = add_files(tree, buffer, buffer(3, 1):uint(), files)
    local info
    if kind == 0 and buffer:len() >= at + 12 then
        info = dissect_message(tree, buffer(at):tvb(), channel, device_type)
    else
        info = "no whole message"
        if buffer:len() > at then
            tree:add(f.bytes, buffer(at))
        end
    end
    if #files > 0 then
        info = info .. " [" .. table.concat(files, ", ") .. "]"
    end
    pinfo.cols.info = info
    return buffer:len()
end

DissectorTable.get("wtap_encap"):add(wtap.USER0, proto)
