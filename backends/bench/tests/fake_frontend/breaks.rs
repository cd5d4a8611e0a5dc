//! What somebody gets wrong in a frontend.

/// One thing is wrong, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    Nothing,
    // Headers.
    Version2,
    ReplyFlag,
    ReservedFlag,
    AsksForAcks,
    LongPayload,
    NoMemoryFile,
    EventAsMemory,
    /// Sends this request without a payload, whatever is negotiated.
    Sends(u32),
    // Features.
    DoesNotAsk,
    AcceptsAll,
    WithoutVersion1,
    FeaturesLate,
    FeaturesWhileRunning,
    ProtocolUnasked,
    ProtocolBlind,
    ProtocolAll,
    ProtocolLate,
    // Order.
    OwnerTwice,
    OwnerLate,
    MemoryLate,
    NoSize,
    NoAddresses,
    NoBase,
    EnablesEarly,
    SizeWhileRunning,
    StartsTwice,
    // Memory.
    GuestOverlap,
    UserOverlap,
    EmptyRegion,
    ShortFile,
    OddOffset,
    NineRegions,
    EmptyTable,
    UserNotGuest,
    // Moving to another host.
    LogSmall,
    LogShortFile,
    LogLate,
    LogUsedBeyond,
    StatePhase,
    StateWhileRunning,
    StateUnchecked,
    StateAltered,
    TooManyRegions,
    SlotsNotAsked,
    RemovesUnknown,
    RemovesWithFile,
    // Rings.
    OddSize,
    HugeSize,
    FarIndex,
    Misaligned(usize),
    OutsideOfMemory,
    PartsOverlap,
    AddressFlags,
    BaseHighBits,
    BaseOther,
    PackedBaseFar,
    PackedWrapZero,
    StopNumber,
    StopsUnknown,
    EnablesWithTwo,
    EnablesUnnegotiated,
    NeverEnables,
    EventBits,
    NoCall,
    OneEvent,
    NoKickAfterStart,
    // Status, configuration, requests in flight.
    StatusBits,
    StatusOrder,
    StatusClears,
    FeaturesOkFirst,
    FeaturesAfterOk,
    NoDriverOk,
    ConfigFlags,
    ConfigEmpty,
    InflightOther,
    InflightLate,
    InflightSmall,
    InflightForgotten,
    // The driver's rings.
    NeverKicks,
    IndexWild,
    HeadWild,
    Loop,
    BufferOutside,
    IndirectUnnegotiated,
    WritableFirst,
    /// Sends an entropy device's requests to a disk.
    RandomToADisk,
    // What is offered.
    AbortsInUse,
    NeedsBit30,
    NeedsAcks,
    NeedsMq,
    NeedsInflight,
    NeedsSlots,
    NeedsStatus,
    NeedsChannel,
    NeedsEventIdx,
    NeedsIndirect,
    CrashesWithoutConfig,
    AcceptsReserved,
    FailsOnReserved,
    AcceptsUnknownProtocol,
    IgnoresSlots,
    IgnoresQueues,
    MakesAllQueues,
    // Replies.
    Impatient,
    DeafWhileItWaits,
    TrustsRequest,
    TrustsFlag,
    TrustsVersion,
    TrustsLength,
    TrustsShort,
    WaitsForAll,
    IgnoresRefusals,
    TrustsConfig,
    IgnoresRefusedTable,
    // Backends that leave, and come again.
    AbortsWhenLeft,
    AbortsWhenLeftWithTable,
    AbortsWhenRefused,
    RemembersFeatures,
    RemembersMemory,
    OtherInflight,
    StartsNothingAgain,
    // The backend's channel.
    AnswersOne,
    AnswersAll,
    IgnoresUnknown,
    AcceptsUnknown,
    AbortsOnOddRequest,
    AcceptsMappings,
    RefusesMappings,
    AbortsOnManyRequests,
    // Rings that a device breaks.
    AbortsOnBadRing,
    AbortsOnSpuriousCall,
    TrustsUsedLength,
    HangsOnSilence,
}

impl Break {
    /// Whether it shares memory by SET_MEM_TABLE.
    pub fn uses_table(self) -> bool {
        matches!(
            self,
            Self::NineRegions
                | Self::EmptyTable
                | Self::IgnoresRefusedTable
                | Self::AbortsWhenLeftWithTable
        )
    }

    pub fn aborts_when_left(self) -> bool {
        matches!(self, Self::AbortsWhenLeft | Self::AbortsWhenLeftWithTable)
    }

    pub fn ignores_refusals(self) -> bool {
        matches!(self, Self::IgnoresRefusals | Self::IgnoresRefusedTable)
    }
}
