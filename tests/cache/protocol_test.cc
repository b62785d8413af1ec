// Goal: every version of the protocol can be named, printed and read back, and a wrong name is
// answered with what would be right. Method: presets against the vectors of the specification;
// round trips of every preset with every value of every switch.
#include "cache/protocol.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace wbfat::cache::inline WBFAT_RT {
namespace {

using ::testing::HasSubstr;

Protocol parsed(const std::string& text) {
    Protocol protocol;
    EXPECT_EQ(Protocol::parse(text, protocol), "") << text;
    return protocol;
}

std::string refused(const std::string& text) {
    Protocol protocol = parsed("5.8");
    std::string sentence = Protocol::parse(text, protocol);
    EXPECT_NE(sentence, "") << text;
    EXPECT_EQ(protocol, parsed("5.8")) << text;
    return sentence;
}

TEST(ProtocolTest, PresetsAreTheVectorsOfTheSpecification) {
    // writeback-protocol.md 17.2, and 4 for 5.9-rc.
    const Protocol a = parsed("5.8");
    EXPECT_EQ(a.waiter, Waiter::kRecheck);
    EXPECT_EQ(a.wake, SharedWake::kTest);
    EXPECT_EQ(a.wait, OuterWait::kIf);
    EXPECT_EQ(a.end, EndClear::kSplit);
    EXPECT_EQ(a.ref, EndReference::kNone);
    EXPECT_EQ(a.handoff, kHandoffNever);
    EXPECT_EQ(a.unlink, Unlink::kPlain);
    EXPECT_EQ(a.walk, WakeWalk::kBroken);
    EXPECT_EQ(parsed("5.8,waiter=trust,wake=blind,handoff=always"), parsed("5.9-rc"));
    EXPECT_EQ(parsed("5.9-rc,handoff=5,unlink=careful"), parsed("5.9"));
    EXPECT_EQ(parsed("5.9,ref=held"), parsed("5.10"));
    EXPECT_EQ(parsed("5.10,wait=while"), parsed("5.11"));
    EXPECT_EQ(parsed("5.11,end=xor,walk=one-hold"), parsed("6.8"));
    EXPECT_EQ(parsed("5.10,wake=test"), parsed("recheck-on-wake"));
    EXPECT_EQ(parsed("5.10,end=queue-lock,walk=one-hold"), parsed("wake-clears"));
    EXPECT_EQ(parsed("5.11,set=with-wait"), parsed("wait-to-set"));
    EXPECT_EQ(parsed("5.10,end-lock=yes"), parsed("lock-in-end"));
}

TEST(ProtocolTest, TheNewestKernelIsTheDefault) {
    EXPECT_EQ(parsed(kDefaultPreset), Protocol{});
    EXPECT_EQ(current_protocol(), Protocol{});
    EXPECT_EQ(parsed("end=split"), parsed("6.8,end=split"));
}

TEST(ProtocolTest, PresetsPrintAsTheirNames) {
    for (const ProtocolPreset& preset : protocol_presets()) {
        EXPECT_EQ(to_string(preset.protocol), preset.name);
        EXPECT_NE(std::string(preset.help), "");
    }
}

TEST(ProtocolTest, PrintsTheNearestPresetAndWhatDiffers) {
    EXPECT_EQ(to_string(parsed("5.9,end=xor")), "5.9,end=xor");
    EXPECT_EQ(to_string(parsed("6.8,handoff=17")), "6.8,handoff=17");
    EXPECT_EQ(to_string(parsed("5.8,ref=held,wait=while,end=xor")),
              "5.8,wait=while,end=xor,ref=held");
}

TEST(ProtocolTest, EveryVersionWithEveryValueReadsBack) {
    for (const ProtocolPreset& preset : protocol_presets()) {
        for (const ProtocolSwitch& which : protocol_switches()) {
            for (const ProtocolSwitchValue& value : which.values) {
                const std::string text =
                    std::string(preset.name) + "," + which.name + "=" + value.name;
                const Protocol protocol = parsed(text);
                EXPECT_EQ(switch_value(protocol, which), value.name) << text;
                EXPECT_EQ(parsed(to_string(protocol)), protocol) << text;
                EXPECT_EQ(protocol_word::unpack(protocol_word::pack(protocol)), protocol) << text;
            }
        }
    }
}

TEST(ProtocolTest, TheLaterSwitchWins) {
    EXPECT_EQ(parsed("5.9,end=xor,end=split"), parsed("5.9"));
}

TEST(ProtocolTest, WrongNamesAreAnsweredWithWhatWouldBeRight) {
    EXPECT_THAT(refused("5.7"), HasSubstr("'5.7' is neither a version (5.8, 5.9-rc, 5.9, 5.10"));
    EXPECT_THAT(refused(""), HasSubstr("'' is neither a version"));
    EXPECT_THAT(refused("5.9,"), HasSubstr("'' is neither a version"));
    EXPECT_THAT(refused("5.9,end"), HasSubstr("'end' is neither a version"));
    EXPECT_THAT(refused("5.9,ends=xor"), HasSubstr("waiter, wake, wait, end, ref, handoff"));
    EXPECT_THAT(refused("5.9,end=or"),
                HasSubstr("'or' is no value of end; it takes split, xor or queue-lock"));
    EXPECT_THAT(refused("handoff=0"), HasSubstr("another number from 1 to 254"));
    EXPECT_THAT(refused("handoff=255"), HasSubstr("never, always or 5"));
    EXPECT_THAT(refused("end=xor,5.9"), HasSubstr("it comes first"));
}

}  // namespace
}  // namespace wbfat::cache::inline WBFAT_RT
