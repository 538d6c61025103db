// What Verilator's FST writer wants of LZ4, for machines that have its library but not its header: blocks of literals
// alone, which every LZ4 reader takes (lz4_Block_format.md, "Literals"). The real header is preferred where there is one.
#pragma once
#if __has_include_next(<lz4.h>)
#include_next <lz4.h>
#else
#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

inline int LZ4_compress_default(const char* from, char* to, int size, int room) {
    if (room < LZ4_compressBound(size)) return 0;
    char* at = to;
    *at++ = char((size < 15 ? size : 15) << 4);  // token: count of literals, no match
    for (int rest = size - 15; rest >= 0; rest -= 255) *at++ = char(rest < 255 ? rest : 255);
    std::memcpy(at, from, size_t(size));
    return int(at - to) + size;
}
#endif
