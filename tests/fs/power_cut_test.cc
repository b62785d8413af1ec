// Goal: a power cut at any moment costs lost clusters, a dirty mark, or shows both names of a
// rename in flight; nothing fsynced is lost, and no file holds bytes of another.
//
// Method: the writes of a seeded workload are recorded; the image is rebuilt at every write
// boundary, and with writes of the last flush epoch dropped or torn at random. Judges are fsck.fat
// -n, a second reader of FAT, and the history of the workload.
//
// WBFAT_FULL=1: 2,000 random states a volume, three seeds, and fsck.fat for every state; without it
// a fifth of that, and fsck.fat for every second. WBFAT_SEED=n: another workload.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <iterator>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/crash_history.h"
#include "tests/support/crash_image.h"
#include "tests/support/crash_verdict.h"
#include "tests/support/crash_workload.h"
#include "tests/support/volume_fixture.h"

namespace wbfat::fs::inline WBFAT_RT {
namespace {

using cache::LogEntry;
using cache::WriteLog;

constexpr unsigned kNrOperations = 300;

bool is_full_run() {
    const char* const value = std::getenv("WBFAT_FULL");
    return value != nullptr && *value != '\0' && std::string(value) != "0";
}

std::uint64_t first_seed() {
    const char* const value = std::getenv("WBFAT_SEED");
    return value == nullptr ? 1 : std::strtoull(value, nullptr, 0);
}

struct Plan {
    VolumeSpec spec;
    std::string name;
    unsigned nr_operations = kNrOperations;
    std::size_t boundary_step = 1;  // every so many boundaries, and all around flushes
    std::size_t nr_random = 0;
    std::function<void(CrashWorkload&)> script{};  // instead of a random workload
    std::size_t fsck_step = 1;  // fsck.fat sees every so many states; the reader sees all
};

struct Figures {
    std::size_t tried = 0;
    std::size_t distinct = 0;
    std::size_t fsck_runs = 0;
    std::size_t damaged = 0;
    std::size_t nr_writes = 0;
    std::size_t nr_flushes = 0;
    std::size_t nr_syncs = 0;
    std::array<std::size_t, static_cast<std::size_t>(Leftover::kCount)> leftovers{};
    std::vector<std::string> findings;  // the first of them
};

std::ostream& operator<<(std::ostream& out, const Figures& figures) {
    out << figures.nr_writes << " writes, " << figures.nr_flushes << " flushes, "
        << figures.nr_syncs << " syncs; " << figures.tried << " states, " << figures.distinct
        << " distinct, " << figures.fsck_runs << " through fsck.fat; damaged: " << figures.damaged;
    for (std::size_t i = 0; i < figures.leftovers.size(); ++i) {
        out << "; " << to_string(static_cast<Leftover>(i)) << ": " << figures.leftovers.at(i);
    }
    return out;
}

// One workload on one volume, and its crash states.
class Campaign {
public:
    Campaign(const Plan& plan, std::uint64_t seed) : plan_(plan), seed_(seed), bed_(plan.spec) {}

    Figures run() {
        record();
        if (testing::Test::HasFatalFailure()) {
            return figures_;
        }
        image_ = std::make_unique<CrashImage>(before_);
        at_boundaries();
        at_random();
        return std::move(figures_);
    }

private:
    static constexpr std::size_t kMaxFindings = 12;

    void record() {
        bed_.mount();
        before_ = bed_.image();
        static_cast<void>(bed_.recorder().take_log());
        workload_ = std::make_unique<CrashWorkload>(bed_, seed_);
        if (plan_.script) {
            plan_.script(*workload_);
        } else {
            workload_->run(plan_.nr_operations);
        }
        nr_workload_flushes_ = count_flushes(bed_.recorder().log());
        figures_.nr_syncs = workload_->nr_syncs();
        workload_->finish();
        clean_from_ = bed_.recorder().nr_entries();
        bed_.unmount();
        log_ = bed_.recorder().take_log();
        figures_.nr_flushes = nr_workload_flushes_;
        figures_.nr_writes =
            static_cast<std::size_t>(std::ranges::count_if(log_, &LogEntry::changes_bytes));
        EXPECT_EQ(bed_.fsck().status, 0) << bed_.fsck().output;
        EXPECT_EQ(bed_.logged(), "");
    }

    static std::size_t count_flushes(const WriteLog& log) {
        return static_cast<std::size_t>(
            std::ranges::count(log, LogEntry::Kind::kFlush, &LogEntry::kind));
    }

    bool is_near_flush(std::size_t cut) const {
        const auto is_flush = [this](std::size_t at) {
            return at < log_.size() && log_[at].kind == LogEntry::Kind::kFlush;
        };
        return is_flush(cut) || (cut >= 1 && is_flush(cut - 1)) || (cut >= 2 && is_flush(cut - 2));
    }

    void at_boundaries() {
        std::size_t nr_boundaries = 0;
        examine(0, "boundary");
        for (std::size_t i = 0; i < log_.size(); ++i) {
            apply_to(*image_, log_[i]);
            // A mark changes what is promised, not the bytes.
            const bool is_sampled = ++nr_boundaries % plan_.boundary_step == 0 ||
                                    is_near_flush(i + 1) || log_[i].kind == LogEntry::Kind::kMark;
            if (is_sampled && log_[i].kind != LogEntry::Kind::kFlush) {
                examine(i + 1, "boundary");
            }
        }
    }

    void at_random() {
        image_ = std::make_unique<CrashImage>(before_);
        std::mt19937_64 random(seed_ * 7919 + 1);
        std::vector<std::size_t> cuts;
        for (std::size_t i = 0; i < plan_.nr_random; ++i) {
            cuts.push_back(1 + random() % log_.size());
        }
        std::ranges::sort(cuts);
        std::size_t applied = 0;
        for (const std::size_t cut : cuts) {
            const cache::LogEpoch epoch = open_epoch(log_, cut);
            for (; applied < epoch.begin; ++applied) {
                apply_to(*image_, log_[applied]);
            }
            image_->begin_trial();
            drop_some(epoch, random);
            examine(cut, "epoch from " + std::to_string(epoch.begin) + " with writes lost");
            image_->end_trial();
        }
    }

    // Writes are lost with any odds, most to none; in a quarter of the states single sectors are.
    void drop_some(const cache::LogEpoch& epoch, std::mt19937_64& random) {
        const unsigned lost_percent = std::array{10U, 30U, 50U, 70U, 90U}.at(random() % 5);
        const bool tears = random() % 4 == 0 && plan_.spec.sector_bytes == 512;
        const auto keep = [&] { return random() % 100 >= lost_percent; };
        for (std::size_t i = epoch.begin; i < epoch.end; ++i) {
            if (!log_[i].changes_bytes()) {
                continue;
            }
            if (tears) {
                apply_to(*image_, log_[i], keep);
            } else if (keep()) {
                apply_to(*image_, log_[i]);
            }
        }
    }

    // The promises belong to the state: the same bytes are examined again after a new claim.
    void examine(std::size_t cut, const std::string& how) {
        figures_.tried++;
        nr_promises_ = promises_at(cut);
        if (!seen_.insert(image_->hash() ^ (nr_promises_ * 0x9E3779B97F4A7C15ULL)).second) {
            return;
        }
        figures_.distinct++;
        CrashVerdict verdict =
            judge(*image_, workload_->history(), cut, figures_.distinct % plan_.fsck_step == 0);
        check_dirty_mark(cut, verdict);
        figures_.fsck_runs += verdict.fsck_was_asked ? 1 : 0;
        for (std::size_t i = 0; i < verdict.leftovers.size(); ++i) {
            figures_.leftovers.at(i) += verdict.leftovers.at(i) ? 1 : 0;
        }
        if (verdict.failures.empty()) {
            return;
        }
        figures_.damaged++;
        if (figures_.findings.size() < kMaxFindings) {
            figures_.findings.push_back(explain(cut, how, verdict));
        }
    }

    // How many marks stand before the cut.
    std::size_t promises_at(std::size_t cut) const {
        return static_cast<std::size_t>(std::count_if(
            log_.begin(), log_.begin() + static_cast<std::ptrdiff_t>(cut),
            [](const LogEntry& entry) { return entry.kind == LogEntry::Kind::kMark; }));
    }

    // Once a write may have reached the disk, and until the unmount has nothing left to write.
    void check_dirty_mark(std::size_t cut, CrashVerdict& verdict) const {
        const std::size_t at = plan_.spec.fat_bits == 32 ? 0x41 : 0x25;
        const bool is_dirty = (image_->bytes()[at] & std::byte{1}) != std::byte{0};
        const auto mark_durable = std::ranges::find(log_, LogEntry::Kind::kFlush, &LogEntry::kind);
        const auto from = static_cast<std::size_t>(mark_durable - log_.begin());
        if (!is_dirty && cut > from && cut < clean_from_) {
            verdict.failures.emplace_back("the dirty mark is not set");
        }
    }

    std::string explain(std::size_t cut, const std::string& how,
                        const CrashVerdict& verdict) const {
        std::string text = "seed " + std::to_string(seed_) + ", cut after " + std::to_string(cut) +
                           " of " + std::to_string(log_.size()) + " entries, " + how + ":\n";
        for (const std::string& failure : verdict.failures) {
            text += "  " + failure + "\n";
        }
        text += "  fsck.fat:\n";
        for (const std::string& line : image_->fsck()) {
            text += "    " + line + "\n";
        }
        text += "  operations before:\n";
        const auto& journal = workload_->journal();
        const auto end = std::ranges::find_if(
            journal, [cut](const auto& operation) { return operation.first >= cut; });
        for (auto at = end - std::min<std::ptrdiff_t>(end - journal.begin(), kJournalLines);
             at != end; ++at) {
            text += "    [" + std::to_string(at->first) + "] " + at->second + "\n";
        }
        return text;
    }

    static constexpr std::ptrdiff_t kJournalLines = 14;

    const Plan plan_;
    const std::uint64_t seed_;
    TestVolume bed_;
    std::unique_ptr<CrashWorkload> workload_;
    std::vector<std::byte> before_;
    WriteLog log_;
    std::size_t clean_from_ = 0;
    std::size_t nr_workload_flushes_ = 0;
    std::size_t nr_promises_ = 0;
    std::unique_ptr<CrashImage> image_;
    std::unordered_set<std::uint64_t> seen_;
    Figures figures_;
};

Plan plan_for(unsigned fat_bits, std::uint64_t mib, std::uint32_t sector_bytes,
              std::uint32_t sectors_per_cluster) {
    Plan plan;
    plan.spec.fat_bits = fat_bits;
    plan.spec.size_bytes = mib << 20;
    plan.spec.sector_bytes = sector_bytes;
    plan.spec.sectors_per_cluster = sectors_per_cluster;
    // Large enough that commits happen when the workload asks for them, so that a seed gives one
    // log.
    plan.spec.cache_bytes = 64U << 20;
    plan.name = "Fat" + std::to_string(fat_bits) + "With" + std::to_string(sector_bytes) + "By" +
                std::to_string(sectors_per_cluster);
    return plan;
}

class PowerCutControlTest : public testing::Test {
protected:
    void SetUp() override {
        if (std::system("command -v fsck.fat >/dev/null") != 0) {
            if (std::getenv("CI") != nullptr) {
                FAIL() << "fsck.fat is missing";
            }
            GTEST_SKIP() << "fsck.fat is missing";
        }
    }
};

class PowerCutTest : public PowerCutControlTest, public testing::WithParamInterface<Plan> {};

TEST_P(PowerCutTest, LeavesNothingWorseThanLostClustersAndEveryPromiseKept) {
    Plan plan = GetParam();
    const unsigned nr_seeds = is_full_run() ? 3 : 1;
    if (is_full_run()) {
        plan.nr_random = 2000;
    } else {
        plan.nr_random = 400;
        plan.fsck_step = 2;
    }
    for (std::uint64_t seed = first_seed(); seed < first_seed() + nr_seeds; ++seed) {
        SCOPED_TRACE("WBFAT_SEED=" + std::to_string(seed));
        const Figures figures = Campaign(plan, seed).run();
        ASSERT_FALSE(HasFatalFailure());
        std::cout << plan.name << ", seed " << seed << ": " << figures << "\n";
        EXPECT_EQ(figures.damaged, 0U);
        for (const std::string& finding : figures.findings) {
            ADD_FAILURE() << finding;
        }
        // States that leave nothing behind were no power cuts.
        EXPECT_GT(figures.leftovers.at(static_cast<std::size_t>(Leftover::kDirtyMark)), 0U);
        EXPECT_GT(figures.leftovers.at(static_cast<std::size_t>(Leftover::kLostClusters)), 0U);
    }
}

// What was freed is thrown away as soon as it may be used again.
Plan discarding(Plan plan) {
    plan.spec.options.discard = true;
    plan.name += "Discarding";
    return plan;
}

INSTANTIATE_TEST_SUITE_P(Volumes, PowerCutTest,
                         testing::Values(plan_for(16, 8, 512, 1),
                                         discarding(plan_for(16, 16, 512, 4)),
                                         plan_for(16, 32, 4096, 1), plan_for(32, 34, 512, 1)),
                         [](const auto& made) { return made.param.name; });

// Each of these lost something once: the shortest workload that showed it.
struct Script {
    std::string name;
    std::function<void(CrashWorkload&)> run;
};

std::vector<Script> rename_scripts() {
    using W = CrashWorkload;
    return {
        {"RemoveADirectoryAFileWasRenamedOutOf",
         [](W& w) {
             // Names in different sectors: the directory's goes in one write, the new one in
             // another.
             const ObjectId from = w.make_directory_at({kRootObject, "from"});
             const ObjectId to = w.make_directory_at({kRootObject, "to"});
             const ObjectId file = w.create_at({from, "f.dat"}, 3000);
             w.sync_file(file);
             w.move_to(file, {to, "f.dat"});
             w.remove_empty(from);
             w.sync_directory(kRootObject);
         }},
        {"ShrinkARenamedFile",
         [](W& w) {
             const ObjectId to = w.make_directory_at({kRootObject, "to"});
             const ObjectId file = w.create_at({kRootObject, "f.dat"}, 10000);
             w.sync_file(file);
             w.move_to(file, {to, "g.dat"});
             w.resize(file, 3000);
             w.sync_directory(kRootObject);
         }},
        {"RenameAShrunkFile",
         [](W& w) {
             const ObjectId to = w.make_directory_at({kRootObject, "to"});
             const ObjectId file = w.create_at({kRootObject, "f.dat"}, 10000);
             w.sync_file(file);
             w.resize(file, 3000);
             w.move_to(file, {to, "g.dat"});
             w.sync_directory(kRootObject);
         }},
        {"SyncAnEmptyNewFile",
         [](W& w) {
             w.sync_file(w.create_at({kRootObject, "empty.dat"}, 0));
             w.create_at({kRootObject, "f.dat"}, 5000);
         }},
        {"MakeARemovedNameAgainElsewhere",
         [](W& w) {
             const ObjectId file = w.create_at({kRootObject, "again.dat"}, 700);
             for (unsigned i = 0; i < 20; ++i) {
                 w.create_at({kRootObject, "x" + std::to_string(i) + ".dat"}, 0);
             }
             w.sync_directory(kRootObject);
             w.unlink_object(file, false);
             w.create_at({kRootObject, "takes.its"}, 0);
             w.create_at({kRootObject, "again.dat"}, 900);
             w.sync_directory(kRootObject);
         }},
        {"RenameAGrownFileIntoAGrownDirectory",
         [](W& w) {
             const ObjectId to = w.make_directory_at({kRootObject, "to"});
             for (unsigned i = 0; i < 14; ++i) {  // with "." and "..": one cluster of 512
                 w.create_at({to, "x" + std::to_string(i) + ".dat"}, 0);
             }
             // The tails of the directory and of the file in different sectors of the FAT, 256
             // entries each, far apart, and the file grows into the next.
             w.create_at({kRootObject, "filler.dat"}, 700 * 512);
             const ObjectId file = w.create_at({kRootObject, "f.dat"}, 300 * 512);
             w.sync_file(file);
             w.sync_directory(kRootObject);
             w.write_at(file, 300 * 512, 40 * 512);
             w.move_to(file, {to, "g.dat"});
             w.sync_directory(kRootObject);
         }},
    };
}

std::vector<Script> exchange_scripts() {
    using W = CrashWorkload;
    return {
        {"ExchangeNamesInDifferentSectors",
         [](W& w) {
             const ObjectId one = w.create_at({kRootObject, "one.dat"}, 3000);
             for (unsigned i = 0; i < 20; ++i) {
                 w.create_at({kRootObject, "x" + std::to_string(i) + ".dat"}, 0);
             }
             const ObjectId other = w.create_at({kRootObject, "other.dat"}, 5000);
             w.sync_file(one);
             w.sync_file(other);
             w.exchange(one, other);
             w.sync_directory(kRootObject);
             w.exchange(one, other);
             w.exchange(other, one);
             w.sync_directory(kRootObject);
         }},
        {"ExchangeAFileAndADirectoryOfDifferentParents",
         [](W& w) {
             const ObjectId from = w.make_directory_at({kRootObject, "from"});
             const ObjectId to = w.make_directory_at({kRootObject, "to"});
             const ObjectId file = w.create_at({from, "f.dat"}, 3000);
             const ObjectId directory = w.make_directory_at({to, "d"});
             const ObjectId inside = w.create_at({directory, "inside.dat"}, 2000);
             w.sync_file(file);
             w.sync_file(inside);
             w.exchange(file, directory);
             w.sync_directory(kRootObject);
             w.exchange(file, directory);
             w.sync_directory(kRootObject);
         }},
        {"ExchangeWhatIsNotOnTheDiskYet",
         [](W& w) {
             const ObjectId to = w.make_directory_at({kRootObject, "to"});
             const ObjectId grown = w.create_at({kRootObject, "grown.dat"}, 700);
             const ObjectId cut = w.create_at({to, "cut.dat"}, 9000);
             w.sync_file(grown);
             w.sync_file(cut);
             w.resize(cut, 900);
             w.write_at(grown, 700, 4000);
             w.exchange(grown, cut);
             w.resize(cut, 0);
             w.write_at(grown, 4700, 600);
             w.exchange(grown, cut);
             w.sync_directory(kRootObject);
         }},
    };
}

std::vector<Script> scripts() {
    std::vector<Script> all = rename_scripts();
    std::ranges::move(exchange_scripts(), std::back_inserter(all));
    return all;
}

class PowerCutScriptTest : public PowerCutControlTest,
                           public testing::WithParamInterface<Script> {};

TEST_P(PowerCutScriptTest, LosesNothing) {
    Plan plan = plan_for(16, 8, 512, 1);
    plan.script = GetParam().run;
    plan.nr_random = 400;
    const Figures figures = Campaign(plan, first_seed()).run();
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_EQ(figures.damaged, 0U);
    for (const std::string& finding : figures.findings) {
        ADD_FAILURE() << finding;
    }
}

INSTANTIATE_TEST_SUITE_P(Scripts, PowerCutScriptTest, testing::ValuesIn(scripts()),
                         [](const auto& made) { return made.param.name; });

// Proof that the judges see something: without flushes the order is gone.
TEST_F(PowerCutControlTest, FindsDamageOnAMountWithoutBarriers) {
    Plan plan = plan_for(16, 8, 512, 1);
    plan.spec.options.nobarrier = true;
    plan.nr_operations = 60;
    plan.boundary_step = 50;
    plan.nr_random = 60;
    const Figures figures = Campaign(plan, first_seed()).run();
    ASSERT_FALSE(HasFatalFailure());
    EXPECT_GT(figures.damaged, figures.distinct / 10) << figures;
}

}  // namespace
}  // namespace wbfat::fs::inline WBFAT_RT
