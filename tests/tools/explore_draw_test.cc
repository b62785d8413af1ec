// Goal: a picture explains its run, no word in it covers another, and what is written is well
// formed. Method: the mail's schedule and a lost wake-up, recorded by hand, are told, laid out and
// written.
#include <sstream>

#include <boost/json.hpp>
#include <boost/property_tree/xml_parser.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/mail_run.h"
#include "tools/explore/draw/explain.h"
#include "tools/explore/draw/happens_before.h"
#include "tools/explore/draw/html.h"
#include "tools/explore/draw/perfetto.h"
#include "tools/explore/draw/picture.h"
#include "tools/explore/draw/story_of.h"
#include "tools/explore/draw/svg.h"
#include "tools/explore/draw/text_lanes.h"

namespace wbfat::explore {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Story mail_story() {
    return story_of(tests::mail_run(), {"protocol 5.10 <&> scenario mail"});
}

std::vector<Story> both_stories() {
    return {mail_story(), story_of(tests::lost_wake_run(), {"a lost wake-up"})};
}

const Strip* strip_named(const Story& story, const std::string& name) {
    for (const Strip& strip : story.strips) {
        if (strip.name == name) {
            return &strip;
        }
    }
    return nullptr;
}

TEST(ExplainTest, TellsTheMailInFiveSentences) {
    const Explanation told = explain(tests::mail_run());
    EXPECT_EQ(told.title, "BUG_ON(PageWriteback(page))");
    std::vector<int> steps;
    std::string text;
    for (const Chapter& chapter : told.chapters) {
        steps.push_back(chapter.step);
        text += chapter.sentence + "\n";
    }
    EXPECT_THAT(steps, ElementsAre(0, 2, 8, 10, 13));
    EXPECT_EQ(
        text,
        "CPU1 ends a writeback: it clears PG_writeback. Then it is delayed, before it wakes "
        "anybody.\n"
        "CPU2 sets PG_writeback again: the next writeback of the same page has begun.\n"
        "CPU3 sees PG_writeback set, and goes to sleep until it is clear.\n"
        "CPU1 goes on with the end of its writeback (1) and wakes CPU3.\n"
        "CPU3 takes that wake-up for the end of the writeback that has just begun (2), does not "
        "look again, and goes on: BUG_ON(PageWriteback(page)).\n");
    EXPECT_EQ(told.seen_write, 2);
}

TEST(ExplainTest, NamesTheSleeperOfADeadlockAndTheWakeUpItMissed) {
    const Explanation told = explain(tests::lost_wake_run());
    EXPECT_EQ(told.title, "CPU2 sleeps for ever: nobody is left to wake it");
    ASSERT_EQ(told.chapters.size(), 1U);
    EXPECT_EQ(told.chapters[0].step, 2);
    EXPECT_THAT(told.chapters[0].sentence, HasSubstr("CPU1 found no waiter"));
}

TEST(ExplainTest, ARunWithoutAFailureAccusesNobody) {
    RunRecord run = tests::mail_run();
    run.failure = {};
    const Explanation told = explain(run);
    EXPECT_TRUE(told.chapters.empty());
    EXPECT_EQ(told.accused, 0U);
}

TEST(HappensBeforeTest, OrdersByTaskObjectAndWakeUpOnly) {
    const auto clocks = happens_before(tests::mail_run());
    // CPU2's first access of the flag word follows CPU1's; CPU1's next step, taking the queue lock,
    // follows CPU3's dropping it.
    EXPECT_THAT(clocks[1], ElementsAre(1, 1, 0));
    EXPECT_THAT(clocks[9], ElementsAre(2, 3, 5));
    // The woken step knows all that its waker knew.
    EXPECT_THAT(clocks[12], ElementsAre(3, 3, 6));
    EXPECT_EQ(clocks[0], (std::vector<std::uint32_t>{1, 0, 0}));
}

TEST(StoryTest, ShowsFlagsPausesAndArrowsOfTheMail) {
    const Story story = mail_story();
    const Strip* const writeback = strip_named(story, "PG_writeback");
    ASSERT_NE(writeback, nullptr);
    EXPECT_TRUE(writeback->accused);
    EXPECT_TRUE(writeback->set_before);
    ASSERT_EQ(writeback->changes.size(), 2U);
    EXPECT_EQ(writeback->changes[1].text, "set by CPU2");
    EXPECT_EQ(strip_named(story, "PG_dirty"), nullptr) << "never changes: tells nothing";
    ASSERT_EQ(story.pauses.size(), 2U);
    EXPECT_EQ(story.pauses[0].kind, Pause::Kind::kDelayed);
    EXPECT_EQ(story.pauses[1].kind, Pause::Kind::kAsleep);
    ASSERT_EQ(story.arrows.size(), 2U);
    EXPECT_EQ(story.arrows[0].kind, Arrow::Kind::kWake);
    EXPECT_EQ(story.arrows[1].kind, Arrow::Kind::kSaw);
    EXPECT_EQ(story.boxes.back().deed, Deed::kFail);
    std::string segments;
    for (const Segment& segment : story.segments) {
        segments += segment.text + " ";
    }
    EXPECT_EQ(segments, "A1 B3 C5 A3 C2 ");
    EXPECT_EQ(schedule_of(tests::mail_run()), "A1 B3 C5 A3 C2");
}

TEST(StoryTest, FoldsWhatChangesNothingThatIsDrawn) {
    RunRecord run = tests::mail_run();
    StepRecord plain;
    plain.task = 2;
    plain.kind = OpKind::kLock;
    plain.object = "i_pages lock";
    plain.pages = run.steps.back().pages;
    plain.functions = {"write_cache_pages"};
    run.steps.insert(run.steps.end() - 1, 3, plain);
    run.failure.step += 3;
    run.inevitability.clear();
    const Story folded = story_of(run, {});
    const Story single = story_of(run, {}, Folding::kOneEach);
    EXPECT_EQ(folded.boxes.size() + 2, single.boxes.size());
    EXPECT_EQ(folded.boxes[folded.boxes.size() - 2].nr_steps, 3U);
    EXPECT_EQ(folded.boxes[folded.boxes.size() - 2].verb, "3");
}

TEST(PictureTest, NoLabelMeetsAnotherAndNoneIsCutByABox) {
    const std::vector<Story> stories = both_stories();
    const Picture picture = lay_out(stories);
    ASSERT_GT(picture.labels.size(), 50U);
    const Rect paper{0, 0, picture.width, picture.height};
    for (std::size_t i = 0; i < picture.labels.size(); ++i) {
        const Label& label = picture.labels[i];
        const Rect area = label.area();
        EXPECT_TRUE(paper.contains(area)) << label.text;
        for (std::size_t j = i + 1; j < picture.labels.size(); ++j) {
            EXPECT_FALSE(area.meets(picture.labels[j].area()))
                << label.text << " / " << picture.labels[j].text;
        }
        for (const Shape& box : picture.boxes) {
            if (box.style.starts_with("box")) {
                EXPECT_TRUE(box.area.contains(area) || !box.area.meets(area) ||
                            label.style == "inverse")
                    << label.text << " is cut by " << box.hint;
            }
        }
    }
}

TEST(PictureTest, BoxesOfDifferentLanesNeverShareAColumn) {
    const std::vector<Story> stories = {mail_story()};
    const Picture picture = lay_out(stories);
    std::vector<Rect> boxes;
    for (const Shape& box : picture.boxes) {
        if (box.style.starts_with("box")) {
            boxes.push_back(box.area);
        }
    }
    ASSERT_EQ(boxes.size(), stories[0].boxes.size());
    for (std::size_t i = 1; i < boxes.size(); ++i) {
        EXPECT_GT(boxes[i].x, boxes[i - 1].right());
    }
}

TEST(TextLanesTest, ReadTheMailsScheduleAsTheMailDrewIt) {
    EXPECT_EQ("\n" + text_lanes_of(mail_story()), R"(
      CPU1                   CPU2                  CPU3
      ----                   ----                  ----

      end_page_writeback()
  1.    clears PG_writeback
        .. delayed ..

                             lock_page()
                               locks page
                             set_page_writeback()
  2.                           sets PG_writeback
                             unlock_page()
                               unlocks page

                                                   lock_page()
                                                     locks page
                                                   wait_on_page_writeback()
                                                     sees set PG_writeback
                                                     locks wait queue
                                                     sets PG_waiters
  3.                                                 sleeps on PG_writeback

      end_page_writeback()
        locks wait queue
  4.    wakes CPU3
        clears PG_waiters

                                                   wait_on_page_writeback()
                                                     woken by CPU1
                                                   write_cache_pages()
  5.                                                 BUG_ON PG_writeback set
)");
}

boost::property_tree::ptree parsed(const std::string& xml) {
    std::istringstream in(xml);
    boost::property_tree::ptree tree;
    boost::property_tree::read_xml(in, tree);
    return tree;
}

TEST(SvgTest, IsWellFormedAndEscapesWhatItWasTold) {
    const std::vector<Story> stories = both_stories();
    const std::string svg = svg_of(lay_out(stories));
    const auto tree = parsed(svg);
    std::size_t nr_texts = 0;
    std::string words;
    for (const auto& [name, child] : tree.get_child("svg")) {
        if (name == "text") {
            ++nr_texts;
            words += child.data() + "\n";
        }
    }
    EXPECT_EQ(nr_texts, lay_out(stories).labels.size());
    EXPECT_THAT(words, HasSubstr("protocol 5.10 <&> scenario mail"));
    EXPECT_THAT(svg, testing::Not(HasSubstr("href")));
    EXPECT_EQ(xml_escaped("a<b>&\"\x01"), "a&lt;b&gt;&amp;&quot; ");
}

TEST(HtmlTest, CarriesEveryBoxWithItsClockAndText) {
    const std::vector<Story> stories = both_stories();
    const std::string page = html_of(stories);
    const std::size_t begin = page.find("const panels = ") + 15;
    const auto panels = boost::json::parse(page.substr(begin, page.find(";\n", begin) - begin));
    ASSERT_EQ(panels.as_array().size(), 2U);
    const auto& boxes = panels.at(0).at("boxes").as_array();
    ASSERT_EQ(boxes.size(), stories[0].boxes.size());
    EXPECT_EQ(boxes[0].at("clock").as_array().size(), 3U);
    EXPECT_EQ(panels.at(1).at("first").to_number<std::size_t>(), boxes.size());
    EXPECT_EQ(page.find("</script>"), page.rfind("</script>"));
}

TEST(PerfettoTest, BindsEveryArrowToSlicesThatExist) {
    const Story story = mail_story();
    const auto events = boost::json::parse(perfetto_of(story)).at("traceEvents").as_array();
    std::map<std::string, int> phases;
    for (const auto& event : events) {
        ++phases[std::string(event.at("ph").as_string())];
    }
    EXPECT_EQ(phases["X"], static_cast<int>(story.boxes.size()));
    EXPECT_EQ(phases["s"], 2);
    EXPECT_EQ(phases["f"], 2);
    EXPECT_EQ(phases["i"], 1);
    EXPECT_EQ(phases["M"], 4);
    for (const auto& event : events) {
        if (event.at("ph").as_string() != "s" && event.at("ph").as_string() != "f") {
            continue;
        }
        const double at = event.at("ts").to_number<double>();
        const auto box = static_cast<std::size_t>(at);
        EXPECT_EQ(event.at("tid").to_number<std::size_t>(), story.boxes[box].thread + 1);
    }
}

}  // namespace
}  // namespace wbfat::explore
