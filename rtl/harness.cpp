// The verilated core and the world around it: clock, AXI4 memories with a timed DRAM behind them, an AXI4-Lite master.
//
// Compiled together with the model of one design (rtl/verilate.py) into a shared library and driven from Python
// (rtl/model.py). A job runs in one call: no Python between cycles. What the design looks like comes as macros:
// DPU_FETCH_PINS and DPU_PORT_PINS, X(prefix) for each core's fetch port and for each read+write port of all cores;
// DPU_CORES; DPU_BEAT_BYTES; DPU_WAVE is 0 (none), 1 (VCD) or 2 (FST).
//
// Time. `cycle` is the cycle that is being lived, counted from power-up. In a cycle the inputs stand, the outputs
// settle (clk = 0), handshakes are read off, then the edge comes (clk = 1) and the inputs of the next cycle are set.
// Whatever is recorded is relative to `origin`: the cycle of the first address on the fetch port after `dpu_arm`,
// which is cycle 0 of the simulator.
//
// Exact mode. Every `ready` is high. A burst whose address is taken in cycle t asks the DRAM model of the simulator
// (a function pointer) in the order FETCH, LOAD, SAVE, of several cores the lowest first; its beats then come one a cycle, the last in cycle end - 1:
//     read   (first, last) = dram(t);  end = max(last, max(first, port free) + beats);  port free = end
//     write  (-, last) = dram(t);      sent = max(t + send, port free) + beats;         port free = sent
//            response in cycle max(last, sent) + response - 1, never before the last beat is there
// Pattern mode. Latencies, gaps and the `ready` of every channel are drawn from a seed, for each port apart. What the core
// asked for and when, and what it was answered and when, is recorded (Record, BeatRecord): hwsim/replay.py lets the
// simulator live through the same.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "Vdpu.h"
#include "verilated.h"
#if DPU_WAVE == 1
#include "verilated_vcd_c.h"
using Wave = VerilatedVcdC;
#elif DPU_WAVE == 2
#include "verilated_fst_c.h"
using Wave = VerilatedFstC;
#endif

namespace {

#define X(pins) +1
constexpr int CORES = DPU_CORES;
constexpr int PORTS = 0 DPU_PORT_PINS;
static_assert(0 DPU_FETCH_PINS == CORES, "a fetch port a core");
#undef X
constexpr int EACH = PORTS / CORES;  // ports of a core
constexpr int BEAT = DPU_BEAT_BYTES;
constexpr int ENGINES = 5 * CORES;
constexpr int64_t NEVER = -1;
constexpr uint64_t PAGE = 4096;  // no burst crosses a multiple of it (AXI4 A3.4.1)
enum Response { OKAY = 0, SLVERR = 2, DECERR = 3 };
enum Channel { FETCH = 0, LOAD = 1, SAVE = 2, CHANNELS = 3 };

// answer[0], answer[1] = first, last of hwsim/kernel.py: dram_access
using Dram = void (*)(int64_t* state, int64_t slots, int64_t now, int64_t address, int64_t size, int64_t write,
                      int64_t* answer);

struct Region {
    uint64_t base, size;
    uint8_t* bytes;
};

// One burst, as it is told to Python: ten int64. `asked`: its address was on the bus first; `at`: it was taken; `ended`:
// the cycle after its last beat (read), or its response (write), went over.
struct Record {
    int64_t channel, port, at, address, size, first, last, response, asked, ended;
};

// One beat of write data, in pattern mode: when it was on the bus first, and when it was taken.
struct BeatRecord {
    int64_t port, asked, at;
};

// Pins of the address channel of a read or write.
struct AddressPins {
    CData *valid, *ready, *len, *size, *burst;
    QData* addr;
    SData* user;
};

struct ReadPins {
    AddressPins ar;
    CData *valid, *ready, *last, *resp;
    void* data;
};

struct WritePins {
    AddressPins aw;
    CData *valid, *ready, *last;
    void *data, *strb;
    CData *b_valid, *b_ready, *b_resp;
};

struct Burst {
    uint64_t address;
    int beats, done;
    int64_t at;      // read: cycle of the next beat; write: earliest cycle of the response
    size_t record;
    int resp;
};

struct Beat {
    uint8_t data[BEAT];
    uint8_t strb[(BEAT + 7) / 8];
    bool last;
};

// Holds what an address or beat showed while it was not taken: it must stay.
struct Held {
    bool waiting = false;
    uint64_t addr = 0;
    int len = 0;
    int64_t since = 0;  // cycle in which it came
};

struct Random {
    uint64_t state = 1;
    uint32_t next() {  // splitmix64, upper half
        uint64_t z = (state += 0x9e3779b97f4a7c15ull);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return uint32_t((z ^ (z >> 31)) >> 32);
    }
    bool chance(int of256) { return int(next() >> 24) < of256; }
    int64_t between(int64_t low, int64_t high) { return low + int64_t(next() % uint64_t(high - low + 1)); }
};

struct Pattern {
    bool on = false;
    int address_stall = 0, data_stall = 0;  // chance of 256 that a channel waits in a cycle
    int64_t latency_low = 1, latency_high = 1, response_high = 1;
};

struct Core;

// A slave's read side: addresses in, beats out in order.
struct ReadPort {
    ReadPins pin;
    Channel channel;
    int port;
    std::deque<Burst> bursts;
    int64_t free = 0;
    bool showing = false;  // a beat is on the bus and stays until it is taken
    Held held;
    void observe(Core& c);
    void apply(Core& c);
};

// A slave's write side.
struct WritePort {
    WritePins pin;
    int port;
    std::deque<Burst> bursts, answers;
    std::deque<Beat> beats;
    int64_t free = 0;
    bool showing = false;
    Held held;
    Beat offered;          // the beat that is on the bus, and waits
    bool waiting = false;
    int64_t since = 0;     // cycle in which it came
    void observe_address(Core& c);
    void observe_data(Core& c);
    void apply(Core& c);
};

struct Core {
    VerilatedContext context;
    std::unique_ptr<Vdpu> top;
#if DPU_WAVE
    std::unique_ptr<Wave> wave;
    int64_t wave_from = 0, wave_to = 0;
#endif
    int64_t cycle = 0, origin = NEVER;
    bool armed = false;
    std::vector<Region> regions;
    Dram dram = nullptr;
    int64_t *dram_state = nullptr, dram_slots = 0, dram_response = 0, save_send = 0;
    Pattern pattern;
    Random random;
    int64_t inject_at[CHANNELS], beats_seen[CHANNELS];
    int inject_response[CHANNELS];
    int64_t late = 0;  // beats that the core was not ready for, or that could not come in time
    std::vector<int64_t> starts[ENGINES], dones[ENGINES];
    std::vector<Record> records;
    std::vector<BeatRecord> beat_records;
    std::string violation;
    ReadPort fetch[CORES];
    ReadPort read[PORTS];
    WritePort write[PORTS];
    // AXI4-Lite master
    bool aw = false, w = false, b = false, ar = false, r = false;
    int lite_resp = 0;
    uint32_t lite_data = 0;

    Core();
    ~Core();
    void bind();
    void arm();
    void idle_inputs();
    void tick();
    void violate(const char* what, int channel, int port);
    size_t accept(Channel channel, int port, const AddressPins& pins, int64_t& first, int64_t& last);
    void check_address(Held& held, const AddressPins& pins, int channel, int port);
    uint8_t* find(uint64_t address, uint64_t size);
    int response(Channel channel);
};

// ---------------------------------------------------------------------------------------------------------------
// memory

uint8_t* Core::find(uint64_t address, uint64_t size) {
    for (const Region& r : regions)
        if (address >= r.base && address - r.base + size <= r.size) return r.bytes + (address - r.base);
    return nullptr;
}

// The response to give now: what was injected for this one, else OKAY.
int Core::response(Channel channel) {
    return ++beats_seen[channel] == inject_at[channel] ? inject_response[channel] : int(OKAY);
}

void Core::violate(const char* what, int channel, int port) {
    if (!violation.empty()) return;
    static const char* const names[] = {"fetch", "read", "write"};
    char text[200];
    std::snprintf(text, sizeof text, "%s port %d, cycle %lld: %s", names[channel], port,
                  (long long)(origin == NEVER ? cycle : cycle - origin), what);
    violation = text;
}

void Core::check_address(Held& held, const AddressPins& p, int channel, int port) {
    if (held.waiting && (!*p.valid || *p.addr != held.addr || *p.len != held.len))
        violate("an address changed or went away before it was taken", channel, port);
    held = {*p.valid && !*p.ready, *p.addr, *p.len, held.waiting ? held.since : cycle};
}

// Takes an address: asks the DRAM, or draws a latency. `first` and `last` are cycles of `cycle`'s count.
size_t Core::accept(Channel channel, int port, const AddressPins& p, int64_t& first, int64_t& last) {
    const int64_t size = int64_t(*p.user) + 1, address = int64_t(*p.addr), beats = int64_t(*p.len) + 1;
    if (*p.burst != 1 || (1 << *p.size) != BEAT) violate("a burst is not INCR of the port's width", channel, port);
    if (uint64_t(address) / PAGE != uint64_t(address + size - 1) / PAGE)
        violate("a burst crosses a 4 KB boundary", channel, port);
    if (beats != (address % BEAT + size + BEAT - 1) / BEAT)
        violate("the bytes of a burst do not make its beats", channel, port);
    if (pattern.on) {
        first = last = cycle + random.between(pattern.latency_low, pattern.latency_high);
    } else if (dram) {
        int64_t answer[2] = {0, 0};
        const int64_t zero = origin == NEVER ? cycle : origin;
        dram(dram_state, dram_slots, cycle - zero, address, size, channel == SAVE, answer);
        first = answer[0] + zero;
        last = answer[1] + zero;
    } else {
        first = cycle + 1;
        last = cycle + 1 + beats;
    }
    const int64_t zero = origin == NEVER ? 0 : origin;
    const int64_t since = (channel == FETCH ? fetch[port].held : channel == LOAD ? read[port].held : write[port].held).since;
    records.push_back({channel, port, cycle - zero, address, size, first - zero, last - zero, OKAY, since - zero, NEVER});
    return records.size() - 1;
}

void ReadPort::observe(Core& c) {
    if (showing && *pin.ready) {  // a beat went over
        Burst& b = bursts.front();
        showing = false;
        b.done++;
        b.at++;
        if (b.done == b.beats) {
            c.records[b.record].last = c.records[b.record].ended = c.cycle + 1 - (c.origin == NEVER ? 0 : c.origin);
            bursts.pop_front();
        } else if (c.pattern.on) {
            while (c.random.chance(c.pattern.data_stall)) b.at++;
        }
    }
    c.check_address(held, pin.ar, channel, port);
    if (*pin.ar.valid && *pin.ar.ready) {
        int64_t first, last;
        const size_t record = c.accept(channel, port, pin.ar, first, last);
        const int beats = int(*pin.ar.len) + 1;
        const int64_t end = std::max(last, std::max(first, free) + beats);
        free = end;
        bursts.push_back({*pin.ar.addr / BEAT * BEAT, beats, 0, end - beats, record, OKAY});
    }
}

void ReadPort::apply(Core& c) {
    const int64_t next = c.cycle + 1;
    *pin.ar.ready = !(c.pattern.on && c.random.chance(c.pattern.address_stall));
    if (!showing && !bursts.empty() && bursts.front().at <= next) {
        Burst& b = bursts.front();
        if (b.at < next && !c.pattern.on) c.late++;
        b.at = next;
        const uint8_t* bytes = c.find(b.address + uint64_t(b.done) * BEAT, BEAT);
        int resp = c.response(channel);
        if (bytes) {
            std::memcpy(pin.data, bytes, BEAT);
        } else {
            std::memset(pin.data, 0, BEAT);
            resp = DECERR;
        }
        if (resp != OKAY) c.records[b.record].response = resp;
        *pin.resp = CData(resp);
        *pin.last = b.done == b.beats - 1;
        showing = true;
    } else if (showing && !c.pattern.on) {
        c.late++;
    }
    *pin.valid = showing;
}

void WritePort::observe_address(Core& c) {
    c.check_address(held, pin.aw, SAVE, port);
    if (!*pin.aw.valid || !*pin.aw.ready) return;
    int64_t first, last;
    const size_t record = c.accept(SAVE, port, pin.aw, first, last);
    const int beats = int(*pin.aw.len) + 1;
    const int64_t sent = std::max(c.cycle + c.save_send, free) + beats;
    free = sent;
    bursts.push_back({*pin.aw.addr / BEAT * BEAT, beats, 0, std::max(last, sent) + c.dram_response - 1, record, OKAY});
}

void WritePort::observe_data(Core& c) {
    if (showing && *pin.b_ready) {
        Burst& b = answers.front();
        showing = false;
        c.records[b.record].ended = c.cycle + 1 - (c.origin == NEVER ? 0 : c.origin);
        c.records[b.record].last = c.records[b.record].ended - c.dram_response;
        answers.pop_front();
    }
    if (waiting && !*pin.valid) c.violate("a beat went away before it was taken", SAVE, port);
    if (*pin.valid) {
        Beat beat;
        std::memcpy(beat.data, pin.data, BEAT);
        std::memcpy(beat.strb, pin.strb, sizeof beat.strb);
        beat.last = *pin.last;
        if (waiting && (std::memcmp(beat.data, offered.data, BEAT) || std::memcmp(beat.strb, offered.strb, sizeof beat.strb) ||
                        beat.last != offered.last))
            c.violate("a beat changed before it was taken", SAVE, port);
        if (!waiting) since = c.cycle;
        if (*pin.ready) {
            const int64_t zero = c.origin == NEVER ? 0 : c.origin;
            if (c.pattern.on) c.beat_records.push_back({port, since - zero, c.cycle - zero});
            beats.push_back(beat);
        } else {
            offered = beat;
        }
        waiting = !*pin.ready;
    }
    while (!bursts.empty() && !beats.empty()) {
        Burst& b = bursts.front();
        const Beat& beat = beats.front();
        uint8_t* bytes = c.find(b.address + uint64_t(b.done) * BEAT, BEAT);
        if (!bytes) b.resp = DECERR;
        for (int i = 0; bytes && i < BEAT; i++)
            if (beat.strb[i / 8] >> (i % 8) & 1) bytes[i] = beat.data[i];
        b.done++;
        if (beat.last != (b.done == b.beats)) c.violate("the last beat is not marked, or another one is", SAVE, port);
        beats.pop_front();
        if (b.done < b.beats) continue;
        if (c.pattern.on) {
            b.at = std::max(b.at, c.cycle + c.random.between(1, c.pattern.response_high));
        } else if (b.at < c.cycle + 1) {
            b.at = c.cycle + 1;
            c.late++;
        }
        answers.push_back(b);
        bursts.pop_front();
    }
}

void WritePort::apply(Core& c) {
    *pin.aw.ready = !(c.pattern.on && c.random.chance(c.pattern.address_stall));
    *pin.ready = !(c.pattern.on && c.random.chance(c.pattern.data_stall));
    if (!showing && !answers.empty() && answers.front().at <= c.cycle + 1) {
        Burst& b = answers.front();
        const int injected = c.response(SAVE);
        if (b.resp == OKAY) b.resp = injected;
        if (b.resp != OKAY) c.records[b.record].response = b.resp;
        *pin.b_resp = CData(b.resp);
        showing = true;
    }
    *pin.b_valid = showing;
}

// ---------------------------------------------------------------------------------------------------------------
// the core

#define ADDRESS(p, a)                                                                                             \
    AddressPins {                                                                                                 \
        &t.p##a##valid, &t.p##a##ready, &t.p##a##len, &t.p##a##size, &t.p##a##burst, &t.p##a##addr, &t.p##a##user \
    }
#define READ(p) \
    ReadPins { ADDRESS(p, ar), &t.p##rvalid, &t.p##rready, &t.p##rlast, &t.p##rresp, &t.p##rdata }
#define WRITE(p)                                                                                            \
    WritePins {                                                                                             \
        ADDRESS(p, aw), &t.p##wvalid, &t.p##wready, &t.p##wlast, &t.p##wdata, &t.p##wstrb, &t.p##bvalid,      \
            &t.p##bready, &t.p##bresp                                                                       \
    }

void Core::bind() {
    Vdpu& t = *top;
    int n = 0;
#define X(pins) fetch[n++].pin = READ(pins);
    DPU_FETCH_PINS
#undef X
    n = 0;
#define X(pins) read[n].pin = READ(pins), write[n++].pin = WRITE(pins);
    DPU_PORT_PINS
#undef X
    for (int c = 0; c < CORES; c++) {
        fetch[c].channel = FETCH;
        fetch[c].port = c;
    }
    for (int p = 0; p < PORTS; p++) {
        read[p].channel = LOAD;
        read[p].port = write[p].port = p;
    }
}

Core::Core() {
    // What nobody wrote is random, but the same in every run.
    context.randReset(2);
    context.randSeed(1);
#if DPU_WAVE
    context.traceEverOn(true);
#endif
    top.reset(new Vdpu{&context});
    bind();
    arm();
    idle_inputs();
}

Core::~Core() {
#if DPU_WAVE
    if (wave) wave->close();
#endif
    top->final();
}

// Forgets what was recorded; the next fetch address is cycle 0.
void Core::arm() {
    armed = true;
    origin = NEVER;
    late = 0;
    records.clear();
    beat_records.clear();
    violation.clear();
    for (int e = 0; e < ENGINES; e++) starts[e].clear(), dones[e].clear();
    for (int i = 0; i < CHANNELS; i++) inject_at[i] = NEVER, beats_seen[i] = 0;
}

// Forgets every transaction under way, as a reset does on the other side.
void Core::idle_inputs() {
    auto quiet = [](ReadPort& p) { p.bursts.clear(), p.free = 0, p.showing = false, p.held = {}; };
    for (ReadPort& p : fetch) {
        quiet(p);
        *p.pin.ar.ready = 1;
        *p.pin.valid = 0;
    }
    for (int i = 0; i < PORTS; i++) {
        quiet(read[i]);
        WritePort& p = write[i];
        p.bursts.clear(), p.answers.clear(), p.beats.clear(), p.free = 0, p.showing = p.waiting = false, p.held = {};
        *p.pin.aw.ready = *p.pin.ready = *read[i].pin.ar.ready = 1;
        *p.pin.b_valid = *read[i].pin.valid = 0;
    }
    top->s_axi_awvalid = top->s_axi_wvalid = top->s_axi_bready = top->s_axi_arvalid = top->s_axi_rready = 0;
    aw = w = b = ar = r = false;
}

void Core::tick() {
    Vdpu& t = *top;
    t.clk = 0;
    t.eval();
#if DPU_WAVE
    const int64_t job_cycle = origin == NEVER ? 0 : cycle - origin;
    const bool shown = wave && job_cycle >= wave_from && job_cycle < wave_to;
    if (shown) wave->dump(uint64_t(2 * cycle));
#endif
    if (armed)
        for (ReadPort& p : fetch)
            if (*p.pin.ar.valid) {
                origin = cycle;
                armed = false;
            }
    if (const uint64_t mask = t.trace_start | t.trace_done)
        for (int e = 0; e < ENGINES; e++)
            if (mask >> e & 1) {
                if (uint64_t(t.trace_start) >> e & 1) starts[e].push_back(cycle - origin);
                if (uint64_t(t.trace_done) >> e & 1) dones[e].push_back(cycle - origin);
            }
    for (int c = 0; c < CORES; c++) {
        fetch[c].observe(*this);
        for (int p = c * EACH; p < (c + 1) * EACH; p++) read[p].observe(*this);
        for (int p = c * EACH; p < (c + 1) * EACH; p++) write[p].observe_address(*this);
    }
    for (WritePort& p : write) p.observe_data(*this);
    if (aw && t.s_axi_awready) aw = false;
    if (w && t.s_axi_wready) w = false;
    if (b && t.s_axi_bvalid) b = false, lite_resp = t.s_axi_bresp;
    if (ar && t.s_axi_arready) ar = false;
    if (r && t.s_axi_rvalid) r = false, lite_resp = t.s_axi_rresp, lite_data = t.s_axi_rdata;

    t.clk = 1;
    t.eval();
#if DPU_WAVE
    if (shown) wave->dump(uint64_t(2 * cycle + 1));
#endif
    for (ReadPort& p : fetch) p.apply(*this);
    for (ReadPort& p : read) p.apply(*this);
    for (WritePort& p : write) p.apply(*this);
    t.s_axi_awvalid = aw;
    t.s_axi_wvalid = w;
    t.s_axi_bready = b;
    t.s_axi_arvalid = ar;
    t.s_axi_rready = r;
    cycle++;
}

}  // namespace

// ---------------------------------------------------------------------------------------------------------------
// what Python calls

#pragma GCC visibility push(default)  // everything else stays inside: several designs live in one process
extern "C" {

Core* dpu_new() { return new Core; }
void dpu_delete(Core* c) { delete c; }

// Memory for the masters; [base, base + size) of the bus. Elsewhere answers DECERR.
void dpu_map(Core* c, uint64_t base, uint64_t size, uint8_t* bytes) { c->regions.push_back({base, size, bytes}); }
void dpu_unmap(Core* c) { c->regions.clear(); }

void dpu_exact(Core* c, Dram dram, int64_t* state, int64_t slots, int64_t response, int64_t save_send) {
    c->pattern = {};
    c->dram = dram;
    c->dram_state = state;
    c->dram_slots = slots;
    c->dram_response = response;
    c->save_send = save_send;
}

void dpu_pattern(Core* c, uint64_t seed, int address_stall, int data_stall, int64_t low, int64_t high, int64_t response) {
    c->pattern = {true, address_stall, data_stall, low, high, response};
    c->dram_response = response;
    c->save_send = 0;
    c->random.state = seed;
}

// The n-th beat (from 1) of a channel, or the n-th write response, answers with `response`; `dpu_arm` takes it back.
void dpu_inject(Core* c, int channel, int64_t nth, int response) {
    c->inject_at[channel] = nth;
    c->inject_response[channel] = response;
}

void dpu_arm(Core* c) { c->arm(); }

void dpu_reset(Core* c, int64_t cycles) {
    c->top->rst = 1;
    c->idle_inputs();
    for (int64_t i = 0; i < cycles; i++) {
        c->tick();
        c->idle_inputs();
    }
    c->top->rst = 0;
}

void dpu_step(Core* c, int64_t cycles) {
    for (int64_t i = 0; i < cycles; i++) c->tick();
}

// Until a cycle with the interrupts of so many cores has been lived, at most `limit` cycles; returns how many.
int64_t dpu_run(Core* c, int64_t limit, int interrupts) {
    int64_t n = 0;
    while (n < limit) {
        const bool last = __builtin_popcount(c->top->irq) >= interrupts;
        c->tick(), n++;
        if (last) break;
    }
    return n;
}

// An AXI4-Lite access; the response, or -1 where none comes within `limit` cycles.
int dpu_poke(Core* c, uint32_t address, uint32_t value, int64_t limit) {
    Vdpu& t = *c->top;
    t.s_axi_awaddr = address;
    t.s_axi_wdata = value;
    t.s_axi_wstrb = 15;
    t.s_axi_awvalid = t.s_axi_wvalid = t.s_axi_bready = 1;
    c->aw = c->w = c->b = true;
    for (int64_t i = 0; i < limit && c->b; i++) c->tick();
    return c->b ? -1 : c->lite_resp;
}

int dpu_peek(Core* c, uint32_t address, uint32_t* value, int64_t limit) {
    Vdpu& t = *c->top;
    t.s_axi_araddr = address;
    t.s_axi_arvalid = t.s_axi_rready = 1;
    c->ar = c->r = true;
    for (int64_t i = 0; i < limit && c->r; i++) c->tick();
    *value = c->lite_data;
    return c->r ? -1 : c->lite_resp;
}

int dpu_irq(Core* c) { return c->top->irq; }
int64_t dpu_cycle(Core* c) { return c->origin == NEVER ? -1 : c->cycle - c->origin; }
int64_t dpu_late(Core* c) { return c->late; }
const char* dpu_violation(Core* c) { return c->violation.c_str(); }

// Starts (`done` = 0) or dones of an engine (of core c: 5 c and up): how many, and the cycles themselves.
int64_t dpu_events(Core* c, int engine, int done, int64_t* out, int64_t room) {
    const std::vector<int64_t>& v = done ? c->dones[engine] : c->starts[engine];
    std::copy(v.begin(), v.begin() + std::min<int64_t>(room, int64_t(v.size())), out);
    return int64_t(v.size());
}

int64_t dpu_records(Core* c, int64_t* out, int64_t room) {
    static_assert(sizeof(Record) == 10 * sizeof(int64_t), "ten numbers a burst");
    std::memcpy(out, c->records.data(), sizeof(Record) * size_t(std::min<int64_t>(room, int64_t(c->records.size()))));
    return int64_t(c->records.size());
}

// Beats of write data, three numbers each, in the order in which they were taken.
int64_t dpu_beats(Core* c, int64_t* out, int64_t room) {
    static_assert(sizeof(BeatRecord) == 3 * sizeof(int64_t), "three numbers a beat");
    const int64_t count = int64_t(c->beat_records.size());
    std::memcpy(out, c->beat_records.data(), sizeof(BeatRecord) * size_t(std::min(room, count)));
    return count;
}

// Writes cycles [from, to) of the job to a wave file, two time units each; 0 where the model has no waves.
int dpu_wave(Core* c, const char* path, int64_t from, int64_t to) {
#if DPU_WAVE
    c->wave.reset(new Wave);
    c->top->trace(c->wave.get(), 99);
    c->wave->open(path);
    c->wave_from = from;
    c->wave_to = to;
    return c->wave->isOpen();
#else
    (void)c, (void)path, (void)from, (void)to;
    return 0;
#endif
}

void dpu_wave_close(Core* c) {
#if DPU_WAVE
    if (c->wave) c->wave->close();
    c->wave.reset();
#else
    (void)c;
#endif
}
}
#pragma GCC visibility pop
