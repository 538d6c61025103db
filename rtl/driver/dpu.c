/* Bare-metal driver of a Tilewright DPU. The program file and the layout of maps are described in docs/isa.md of the
 * project; the registers in dpu.h come from the table that the hardware is built from. */
#include "dpu.h"

#include <string.h>

enum { HEAD_BYTES = 48, NOTES_HEAD_BYTES = 16, NOTES_BYTES = 16, MAP_BYTES = 128, WORD_BYTES = 64, GROUP_BYTES = 1024 };

/* Fields of files are little-endian, whatever the processor is. */
static uint64_t little(const uint8_t *at, unsigned bytes) {
    uint64_t value = 0;
    while (bytes--) value = value << 8 | at[bytes];
    return value;
}

static uint64_t read_pair(const dpu_t *dpu, uint32_t offset) {
    const uint64_t low = DPU_READ32(dpu, offset);
    return low | (uint64_t)DPU_READ32(dpu, offset + 4u) << 32;
}

static void write_pair(const dpu_t *dpu, uint32_t offset, uint64_t value) {
    DPU_WRITE32(dpu, offset, (uint32_t)value);
    DPU_WRITE32(dpu, offset + 4u, (uint32_t)(value >> 32));
}

static size_t whole(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

dpu_status_t dpu_init(dpu_t *dpu, uintptr_t registers, dpu_cache_t flush, dpu_cache_t invalidate) {
    dpu->registers = (volatile uint32_t *)registers;
    dpu->flush = flush;
    dpu->invalidate = invalidate;
    dpu->design = 0;
    if (DPU_READ32(dpu, DPU_ID) != DPU_ID_VALUE) return DPU_NO_CORE;
    if (DPU_READ32(dpu, DPU_VERSION) != DPU_VERSION_VALUE) return DPU_OTHER_TABLE;
    dpu->design = read_pair(dpu, DPU_DESIGN_HASH_LO);
    return DPU_OK;
}

/* The design hash stands in the file as 16 hex digits; 0 on a wrong digit. */
static int hash_of(const uint8_t *text, uint64_t *value) {
    *value = 0;
    for (int i = 0; i < 16; i++) {
        const uint8_t c = text[i];
        unsigned digit;
        if (c >= '0' && c <= '9') digit = c - '0';
        else if (c >= 'a' && c <= 'f') digit = c - 'a' + 10u;
        else return 0;
        *value = *value << 4 | digit;
    }
    return 1;
}

dpu_status_t dpu_image_open(dpu_image_t *image, const void *data, size_t bytes) {
    const uint8_t *at = data;
    memset(image, 0, sizeof *image);
    if (bytes < HEAD_BYTES || memcmp(at, "TILEWRT1", 8) != 0 || !hash_of(at + 8, &image->design)) return DPU_NO_IMAGE;
    const uint64_t words = little(at + 24, 8), weights = little(at + 32, 8);
    if (words > bytes || weights > bytes || words % WORD_BYTES) return DPU_NO_IMAGE;
    const uint64_t end = HEAD_BYTES + words + weights + 5 * (words / WORD_BYTES);
    if (end > bytes) return DPU_NO_IMAGE;
    image->words = at + HEAD_BYTES;
    image->weights = image->words + words;
    image->words_bytes = (size_t)words;
    image->weights_bytes = (size_t)weights;
    image->maps_bytes = (size_t)little(at + 40, 8);
    /* Notes for drivers may be absent: then the caller knows where maps lie. */
    if (bytes - end >= NOTES_HEAD_BYTES + NOTES_BYTES && memcmp(at + end, "TILEWIO1", 8) == 0 &&
        little(at + end + NOTES_HEAD_BYTES, 4) == 1) {
        const uint64_t count = little(at + end + NOTES_HEAD_BYTES + 8, 4);
        if ((bytes - end - NOTES_HEAD_BYTES - NOTES_BYTES) / MAP_BYTES < count) return DPU_NO_IMAGE;
        image->lanes = (uint32_t)little(at + end + NOTES_HEAD_BYTES + 4, 4);
        image->map_count = (uint32_t)count;
        image->maps = at + end + NOTES_HEAD_BYTES + NOTES_BYTES;
    }
    return DPU_OK;
}

/* Each of the three regions begins on a page and ends on one: beats may reach beyond the last byte. */
size_t dpu_memory_bytes(const dpu_image_t *image) {
    return whole(whole(image->words_bytes, GROUP_BYTES), DPU_PAGE_BYTES) + whole(image->weights_bytes, DPU_PAGE_BYTES) +
           whole(image->maps_bytes, DPU_PAGE_BYTES);
}

dpu_status_t dpu_load(const dpu_t *dpu, const dpu_image_t *image, void *memory, uint64_t bus_address, size_t bytes,
                      dpu_program_t *program) {
    uint8_t *at = memory;
    const size_t program_bytes = whole(whole(image->words_bytes, GROUP_BYTES), DPU_PAGE_BYTES);
    const size_t weights_bytes = whole(image->weights_bytes, DPU_PAGE_BYTES);
    if (image->design != dpu->design) return DPU_OTHER_DESIGN;
    if (bus_address % DPU_PAGE_BYTES) return DPU_MISALIGNED;
    if (bytes < dpu_memory_bytes(image)) return DPU_NO_ROOM;
    memcpy(at, image->words, image->words_bytes);
    memset(at + image->words_bytes, 0, program_bytes - image->words_bytes);
    memcpy(at + program_bytes, image->weights, image->weights_bytes);
    program->design = image->design;
    program->program_base = bus_address;
    program->weights_base = bus_address + program_bytes;
    program->maps_base = program->weights_base + weights_bytes;
    program->count = (uint32_t)(image->words_bytes / WORD_BYTES);
    program->lanes = image->lanes;
    program->maps = at + program_bytes + weights_bytes;
    program->maps_bytes = whole(image->maps_bytes, DPU_PAGE_BYTES);
    if (dpu->flush) dpu->flush(at, program_bytes + weights_bytes);
    return DPU_OK;
}

dpu_status_t dpu_map(const dpu_image_t *image, uint32_t index, dpu_map_t *map) {
    if (index >= image->map_count) return DPU_NO_MAP;
    const uint8_t *at = image->maps + (size_t)index * MAP_BYTES;
    const uint32_t scale = (uint32_t)little(at + 20, 4);
    map->offset = little(at, 8);
    map->height = (uint32_t)little(at + 8, 4);
    map->width = (uint32_t)little(at + 12, 4);
    map->channels = (uint32_t)little(at + 16, 4);
    memcpy(&map->scale, &scale, sizeof map->scale); /* the bits of an IEEE 754 single */
    map->zero_point = (int32_t)(uint32_t)little(at + 24, 4);
    map->is_input = little(at + 28, 4) == 1;
    memcpy(map->name, at + 32, sizeof map->name);
    map->name[sizeof map->name - 1] = 0;
    return DPU_OK;
}

/* [block][row][column][lane]: a block holds `lanes` channels, the last one what is left. */
void dpu_pack(const dpu_program_t *program, const dpu_map_t *map, const int8_t *value) {
    int8_t *to = (int8_t *)program->maps + map->offset;
    const size_t pixels = (size_t)map->height * map->width;
    for (uint32_t first = 0; first < map->channels; first += program->lanes) {
        const uint32_t left = map->channels - first, width = left < program->lanes ? left : program->lanes;
        for (size_t p = 0; p < pixels; p++, to += width) memcpy(to, value + p * map->channels + first, width);
    }
}

void dpu_unpack(const dpu_program_t *program, const dpu_map_t *map, int8_t *value) {
    const int8_t *from = (const int8_t *)program->maps + map->offset;
    const size_t pixels = (size_t)map->height * map->width;
    for (uint32_t first = 0; first < map->channels; first += program->lanes) {
        const uint32_t left = map->channels - first, width = left < program->lanes ? left : program->lanes;
        for (size_t p = 0; p < pixels; p++, from += width) memcpy(value + p * map->channels + first, from, width);
    }
}

/* To the nearest code, half to even, as ONNX QuantizeLinear: adding 1.5 * 2^23 leaves the integer in the last place. */
int8_t dpu_quantise(const dpu_map_t *map, float real) {
    const float scaled = real / map->scale;
    volatile float rounded = scaled < -1024.0f ? -1024.0f : scaled > 1024.0f ? 1024.0f : scaled;
    rounded += 12582912.0f;
    rounded -= 12582912.0f;
    const int32_t code = (int32_t)rounded + map->zero_point;
    return (int8_t)(code < -128 ? -128 : code > 127 ? 127 : code);
}

float dpu_dequantise(const dpu_map_t *map, int8_t code) { return (float)(code - map->zero_point) * map->scale; }

dpu_status_t dpu_start(const dpu_t *dpu, const dpu_program_t *program, uint32_t watchdog_cycles, int interrupt) {
    const uint32_t events = DPU_IRQ_STATUS_DONE_MASK | DPU_IRQ_STATUS_ERROR_MASK;
    if (DPU_READ32(dpu, DPU_STATUS) & DPU_STATUS_BUSY_MASK) return DPU_BUSY;
    if (dpu->flush) dpu->flush(program->maps, program->maps_bytes);
    write_pair(dpu, DPU_PROGRAM_BASE_LO, program->program_base);
    write_pair(dpu, DPU_WEIGHTS_BASE_LO, program->weights_base);
    write_pair(dpu, DPU_MAPS_BASE_LO, program->maps_base);
    DPU_WRITE32(dpu, DPU_PROGRAM_WORDS, program->count);
    write_pair(dpu, DPU_PROGRAM_HASH_LO, program->design);
    DPU_WRITE32(dpu, DPU_WATCHDOG, watchdog_cycles);
    DPU_WRITE32(dpu, DPU_IRQ_STATUS, events);
    DPU_WRITE32(dpu, DPU_IRQ_ENABLE, interrupt ? events : 0u);
    DPU_WRITE32(dpu, DPU_CONTROL, DPU_CONTROL_START_MASK);
    return DPU_OK;
}

/* Also what an interrupt handler calls: it takes the interrupt back. */
dpu_status_t dpu_poll(const dpu_t *dpu, const dpu_program_t *program) {
    const uint32_t events = DPU_READ32(dpu, DPU_IRQ_STATUS);
    if (!(events & (DPU_IRQ_STATUS_DONE_MASK | DPU_IRQ_STATUS_ERROR_MASK))) return DPU_RUNNING;
    DPU_WRITE32(dpu, DPU_IRQ_STATUS, events);
    if (events & DPU_IRQ_STATUS_ERROR_MASK) return DPU_STOPPED;
    if (dpu->invalidate) dpu->invalidate(program->maps, program->maps_bytes);
    return DPU_OK;
}

dpu_status_t dpu_run(const dpu_t *dpu, const dpu_program_t *program, uint32_t polls) {
    dpu_status_t status = dpu_start(dpu, program, 0, 0);
    if (status != DPU_OK) return status;
    while (polls--) {
        status = dpu_poll(dpu, program);
        if (status != DPU_RUNNING) return status;
    }
    dpu_abort(dpu);
    return DPU_TIMEOUT;
}

void dpu_abort(const dpu_t *dpu) { DPU_WRITE32(dpu, DPU_CONTROL, DPU_CONTROL_ABORT_MASK); }

dpu_error_t dpu_error(const dpu_t *dpu) {
    const uint32_t cause = DPU_READ32(dpu, DPU_ERROR_CAUSE);
    dpu_error_t error;
    error.cause = (cause & DPU_ERROR_CAUSE_CAUSE_MASK) >> DPU_ERROR_CAUSE_CAUSE_SHIFT;
    error.response = (cause & DPU_ERROR_CAUSE_RESPONSE_MASK) >> DPU_ERROR_CAUSE_RESPONSE_SHIFT;
    error.instruction = DPU_READ32(dpu, DPU_ERROR_INSTRUCTION);
    error.address = read_pair(dpu, DPU_ERROR_ADDRESS_LO);
    return error;
}

dpu_figures_t dpu_figures(const dpu_t *dpu) {
    const uint32_t step = DPU_CONV_BUSY_LO - DPU_LOAD_BUSY_LO;
    dpu_figures_t found;
    found.cycles = read_pair(dpu, DPU_CYCLES_LO);
    found.fetch_bytes = read_pair(dpu, DPU_FETCH_BYTES_LO);
    found.load_bytes = read_pair(dpu, DPU_LOAD_BYTES_LO);
    found.save_bytes = read_pair(dpu, DPU_SAVE_BYTES_LO);
    for (uint32_t e = 0; e < 5; e++) {
        found.busy[e] = read_pair(dpu, DPU_LOAD_BUSY_LO + e * step);
        found.done[e] = DPU_READ32(dpu, DPU_LOAD_DONE + e * step);
    }
    return found;
}

const char *dpu_cause_name(uint32_t cause) {
    static const char *const names[] = DPU_CAUSE_NAMES;
    return cause < sizeof names / sizeof names[0] ? names[cause] : "unknown";
}
