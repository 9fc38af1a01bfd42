// Runs kernels that the host wrote as PTX, instruction by instruction: the part of the language that it writes
// (kernels/src/cuda/lower/map). Anything else ends the program. Functions that are called are those of the library
// that has the kernels compiled for the host.
#pragma once
#include <dlfcn.h>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include "cuda_on_cpu.h"

namespace ptx {

[[noreturn]] inline void refuse(const std::string& what) {
    fprintf(stderr, "cuda_on_cpu: PTX: %s\n", what.c_str());
    abort();
}

// A register, a number, or a special register.
struct Operand {
    enum { REGISTER, NUMBER, THREAD, BLOCK } kind;
    uint64_t value;
};

struct Thread;
struct Instruction {
    void (*run)(Thread&, const Instruction&);
    int guard = -1;  // the register that says whether it runs, or none
    bool negated = false;
    std::vector<Operand> operands;  // of an address, two: base and offset
    size_t target = 0;
    void* function = nullptr;
};

struct Program {
    std::vector<Instruction> code;
    size_t registers = 0, numbers = 0, shared = 0;
};

struct Thread {
    const Program& program;
    std::vector<uint64_t> registers;
    const unsigned char* parameters;  // slots, then numbers
    unsigned char* shared;
    size_t at = 0;
    float arguments[2], result;

    uint64_t get(const Operand& operand) const {
        switch (operand.kind) {
            case Operand::REGISTER: return registers[operand.value];
            case Operand::NUMBER: return operand.value;
            case Operand::THREAD: return threadIdx.x;
            default: return blockIdx.x;
        }
    }
    template <class T>
    T as(const Operand& operand) const {
        uint64_t bits = get(operand);
        T x;
        memcpy(&x, &bits, sizeof x);
        return x;
    }
    template <class T>
    void set(const Operand& operand, T x) {
        if (operand.kind != Operand::REGISTER) refuse("a result that is no register");
        uint64_t bits = 0;
        memcpy(&bits, &x, sizeof x);
        registers[operand.value] = bits;
    }
};

typedef void (*Run)(Thread&, const Instruction&);

template <class T>
T* address(Thread& t, const Instruction& i, size_t base) {
    uint64_t at = t.get(i.operands[base]) + i.operands[base + 1].value;
    if (at % sizeof(T)) refuse("an address that is not aligned");
    return reinterpret_cast<T*>(at);
}
template <class T>
T* in_shared(Thread& t, const Instruction& i, size_t base) {
    uint64_t at = t.get(i.operands[base]) + i.operands[base + 1].value;
    if (at % sizeof(T) || at + sizeof(T) > t.program.shared) refuse("outside of shared memory");
    return reinterpret_cast<T*>(t.shared + at);
}
template <class T>
void load(Thread& t, const Instruction& i) { t.set(i.operands[0], *address<T>(t, i, 1)); }
template <class T>
void store(Thread& t, const Instruction& i) { *address<T>(t, i, 0) = t.as<T>(i.operands[2]); }
template <class T>
void load_parameter(Thread& t, const Instruction& i) {
    T x;
    memcpy(&x, t.parameters + t.get(i.operands[1]) + i.operands[2].value, sizeof x);
    t.set(i.operands[0], x);
}
template <class T, class F>
T saturated(F x) {
    if (x != x) return 0;
    if (x >= F(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
    return x <= F(std::numeric_limits<T>::min()) ? std::numeric_limits<T>::min() : T(x);
}

#define A(T) t.as<T>(i.operands[1])
#define B(T) t.as<T>(i.operands[2])
#define C(T) t.as<T>(i.operands[3])
#define RUN(expression) [](Thread& t, const Instruction& i) { t.set(i.operands[0], expression); }
#define ARITHMETIC(name, T)                                                                                       \
    {"add.rn." name, RUN(A(T) + B(T))}, {"sub.rn." name, RUN(A(T) - B(T))}, {"mul.rn." name, RUN(A(T) * B(T))},   \
    {"div.rn." name, RUN(A(T) / B(T))}, {"neg." name, RUN(-A(T))}, {"abs." name, RUN(std::abs(A(T)))},            \
    {"sqrt.rn." name, RUN(std::sqrt(A(T)))}, {"rcp.rn." name, RUN(T(1) / A(T))}, {"mov." name, RUN(A(T))},        \
    {"setp.eq." name, RUN(A(T) == B(T))}, {"setp.gt." name, RUN(A(T) > B(T))}, {"setp.lt." name, RUN(A(T) < B(T))}, \
    {"setp.le." name, RUN(A(T) <= B(T))}, {"setp.nan." name, RUN(A(T) != A(T) || B(T) != B(T))},                  \
    {"setp.eq.or." name, RUN(A(T) == B(T) || C(bool))},                                                           \
    {"setp.nan.or." name, RUN(A(T) != A(T) || B(T) != B(T) || C(bool))},                                          \
    {"setp.nan.and." name, RUN((A(T) != A(T) || B(T) != B(T)) && C(bool))},                                       \
    {"selp." name, RUN(C(bool) ? A(T) : B(T))}, {"cvt.rn." name ".u32", RUN(T(A(uint32_t)))},                     \
    {"cvt.rn." name ".s32", RUN(T(A(int32_t)))}, {"cvt.rzi.u32." name, RUN((saturated<uint32_t>(A(T))))},         \
    {"cvt.rzi.s32." name, RUN((saturated<int32_t>(A(T))))},                                                       \
    {"ld.global." name, load<T>}, {"st.global." name, store<T>}

inline uint16_t to_bfloat(float x) {
    uint32_t bits = __float_as_uint(x);
    return x != x ? 0x7FFF : uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline float toward_zero(double x) {
    float nearest = float(x);
    return std::abs(double(nearest)) > std::abs(x) && !std::isinf(x) ? std::nextafter(nearest, 0.0f) : nearest;
}

inline const std::map<std::string, Run>& table() {
    typedef uint32_t u;
    typedef uint64_t w;
    static const std::map<std::string, Run> runs = {
        ARITHMETIC("f32", float), ARITHMETIC("f64", double),
        {"add.u32", RUN(A(u) + B(u))}, {"sub.u32", RUN(A(u) - B(u))}, {"mul.lo.u32", RUN(A(u) * B(u))},
        {"mul.hi.u32", RUN(u(w(A(u)) * B(u) >> 32))}, {"mad.lo.u32", RUN(A(u) * B(u) + C(u))},
        {"mad.wide.u32", RUN(w(A(u)) * B(u) + C(w))}, {"shr.u32", RUN(A(u) >> B(u))}, {"shl.b32", RUN(A(u) << B(u))},
        {"and.b32", RUN(A(u) & B(u))}, {"min.u32", RUN(A(u) < B(u) ? A(u) : B(u))}, {"mov.u32", RUN(A(u))},
        {"mov.b32", RUN(A(u))}, {"selp.b32", RUN(C(bool) ? A(u) : B(u))},
        {"setp.ge.u32", RUN(A(u) >= B(u))}, {"setp.lt.u32", RUN(A(u) < B(u))}, {"setp.eq.u32", RUN(A(u) == B(u))},
        {"setp.ne.u32", RUN(A(u) != B(u))}, {"and.pred", RUN(A(bool) && B(bool))},
        {"mov.u64", RUN(A(w))}, {"add.u64", RUN(A(w) + B(w))}, {"shr.u64", RUN(A(w) >> B(u))}, {"shl.b64", RUN(A(w) << B(u))},
        {"and.b64", RUN(A(w) & B(w))}, {"cvt.u32.u64", RUN(u(A(w)))},
        {"cvt.f64.f32", RUN(double(A(float)))}, {"cvt.rn.f32.f64", RUN(float(A(double)))},
        {"cvt.rz.f32.f64", RUN(toward_zero(A(double)))}, {"setp.neu.f64", RUN(A(double) != B(double))},
        {"or.b32", RUN(A(u) | B(u))},
        {"cvt.f32.f16", RUN(float(A(_Float16)))}, {"cvt.rn.f16.f32", RUN(_Float16(A(float)))},
        {"cvt.rn.bf16.f32", RUN(to_bfloat(A(float)))},
        {"ld.param.u32", load_parameter<u>}, {"ld.param.u64", load_parameter<w>},
        {"ld.global.nc.u32", load<u>}, {"ld.global.nc.u64", load<w>}, {"ld.global.u8", load<uint8_t>},
        {"ld.global.u16", load<uint16_t>}, {"ld.global.b16", load<uint16_t>}, {"ld.global.u32", load<u>},
        {"ld.global.cg.f32", load<float>}, {"st.global.u8", store<uint8_t>}, {"st.global.b16", store<uint16_t>},
        {"st.global.u32", store<u>},
        {"ld.global.v4.f32", [](Thread& t, const Instruction& i) {
             const float4* from = address<float4>(t, i, 4);
             float4 x = *from;
             t.set(i.operands[0], x.x), t.set(i.operands[1], x.y), t.set(i.operands[2], x.z), t.set(i.operands[3], x.w);
         }},
        {"st.global.v4.f32", [](Thread& t, const Instruction& i) {
             float x[4];
             for (int k = 0; k < 4; ++k) x[k] = t.as<float>(i.operands[2 + k]);
             *address<float4>(t, i, 0) = make_float4(x[0], x[1], x[2], x[3]);
         }},
        {"ld.shared.f32", [](Thread& t, const Instruction& i) { t.set(i.operands[0], *in_shared<float>(t, i, 1)); }},
        {"ld.shared.u32", [](Thread& t, const Instruction& i) { t.set(i.operands[0], *in_shared<u>(t, i, 1)); }},
        {"st.shared.f32", [](Thread& t, const Instruction& i) { *in_shared<float>(t, i, 0) = t.as<float>(i.operands[2]); }},
        {"st.shared.u32", [](Thread& t, const Instruction& i) { *in_shared<u>(t, i, 0) = t.as<u>(i.operands[2]); }},
        {"atom.global.inc.u32", [](Thread& t, const Instruction& i) {
             u* at = address<u>(t, i, 1);
             u before = *at;
             *at = before >= t.as<u>(i.operands[3]) ? 0 : before + 1;
             t.set(i.operands[0], before);
         }},
        {"membar.gl", [](Thread&, const Instruction&) {}},
        {"bar.sync", [](Thread&, const Instruction&) { shim::block_barrier(); }},
        {"bra", [](Thread& t, const Instruction& i) { t.at = i.target; }},
        {"exit", [](Thread& t, const Instruction&) { t.at = t.program.code.size(); }},
        {"ret", [](Thread& t, const Instruction&) { t.at = t.program.code.size(); }},
        {"st.param.f32", [](Thread& t, const Instruction& i) { t.arguments[i.operands[0].value] = t.as<float>(i.operands[2]); }},
        {"ld.param.f32", [](Thread& t, const Instruction& i) { t.set(i.operands[0], t.result); }},
        {"call", [](Thread& t, const Instruction& i) {
             typedef float (*One)(float);
             typedef float (*Two)(float, float);
             bool two = i.operands.size() > 3;
             t.result = two ? reinterpret_cast<Two>(i.function)(t.arguments[0], t.arguments[1])
                            : reinterpret_cast<One>(i.function)(t.arguments[0]);
         }},
    };
    return runs;
}
#undef A
#undef B
#undef C
#undef RUN

// Words of a line: separated by spaces, commas and what else binds operands together.
inline std::vector<std::string> words(const std::string& line) {
    std::vector<std::string> found(1);
    for (char c : line) {
        if (strchr(" ,[]{}();\t", c)) {
            if (!found.back().empty()) found.emplace_back();
        } else if (c == '+') {
            found.emplace_back();
        } else {
            found.back() += c;
        }
    }
    if (found.back().empty()) found.pop_back();
    return found;
}

// The kernel of that name in a module's text.
inline Program parse(const std::string& image, const std::string& name, void* library) {
    size_t begin = image.find(".entry " + name + "("), end = image.find("\n}\n", begin);
    std::string body = image.substr(begin, end - begin);
    Program program;
    std::map<std::string, int> registers;
    std::map<std::string, size_t> labels;
    std::vector<std::pair<size_t, std::string>> jumps;
    auto number_of = [&](const std::string& word) {
        auto found = registers.emplace(word, int(registers.size()));
        return found.first->second;
    };
    // Where names of memory begin: parameters one after another, arguments by their numbers.
    const std::map<std::string, uint64_t> memory = {{"slots", 0}, {"numbers", 8}, {"shared", 0}, {"x0", 0}, {"x1", 1}, {"y", 2}};
    for (size_t from = 0, to; from < body.size(); from = to + 1) {
        to = body.find('\n', from);
        if (to == std::string::npos) to = body.size();
        std::string line = body.substr(from, to - from);
        std::vector<std::string> parts = words(line);
        if (parts.empty()) continue;
        if (parts[0] == ".entry") {
            size_t at = line.find("numbers[");
            program.numbers = size_t(atol(line.c_str() + at + 8));
            continue;
        }
        if (parts[0] == ".shared") {
            program.shared = size_t(atol(parts.back().c_str()));
            continue;
        }
        if (parts[0] == ".reg" || parts[0] == ".param" || parts[0] == ".maxntid") continue;
        if (parts[0].back() == ':') {
            labels[parts[0].substr(0, parts[0].size() - 1)] = program.code.size();
            continue;
        }
        Instruction instruction;
        size_t at = 0;
        if (parts[0][0] == '@') {
            instruction.negated = parts[0][1] == '!';
            instruction.guard = number_of(parts[0].substr(instruction.negated ? 2 : 1));
            at = 1;
        }
        const std::string op = parts[at];
        auto run = table().find(op);
        if (run == table().end()) refuse(line);
        instruction.run = run->second;
        bool plus = line.find('+') != std::string::npos;
        for (size_t k = at + 1; k < parts.size(); ++k) {
            const std::string& word = parts[k];
            if (op == "bra") {
                jumps.emplace_back(program.code.size(), word);
            } else if (op == "call" && word.compare(0, 4, "map_") == 0) {
                instruction.function = dlsym(library, word.c_str());
                if (!instruction.function) refuse(line);
                instruction.operands.push_back({Operand::NUMBER, 0});
            } else if (word == "%tid.x") {
                instruction.operands.push_back({Operand::THREAD, 0});
            } else if (word == "%ctaid.x") {
                instruction.operands.push_back({Operand::BLOCK, 0});
            } else if (word[0] == '%') {
                instruction.operands.push_back({Operand::REGISTER, uint64_t(number_of(word))});
            } else if (memory.count(word)) {
                instruction.operands.push_back({Operand::NUMBER, memory.at(word)});
            } else if (word.compare(0, 2, "0f") == 0 || word.compare(0, 2, "0d") == 0) {
                instruction.operands.push_back({Operand::NUMBER, strtoull(word.c_str() + 2, nullptr, 16)});
            } else {
                instruction.operands.push_back({Operand::NUMBER, strtoull(word.c_str(), nullptr, 0)});
            }
            // An address without an offset has that of 0.
            bool bracket = line.find('[' + word + ']') != std::string::npos;
            if (bracket && !plus) instruction.operands.push_back({Operand::NUMBER, 0});
        }
        program.code.push_back(std::move(instruction));
    }
    for (auto& jump : jumps) {
        if (!labels.count(jump.second)) refuse("no label " + jump.second);
        program.code[jump.first].target = labels[jump.second];
    }
    program.registers = registers.size();
    return program;
}

// Runs a kernel on these parameters: slots, and the numbers.
inline void launch(const Program& program, void** parameters, unsigned blocks, unsigned threads) {
    std::vector<unsigned char> bytes(8 + program.numbers);
    memcpy(bytes.data(), parameters[0], 8);
    memcpy(bytes.data() + 8, parameters[1], program.numbers);
    std::vector<unsigned char> shared(program.shared, 0xAA);
    shim::launch(blocks, threads, 0, [&] {
        Thread thread{program, std::vector<uint64_t>(program.registers, 0xAAAAAAAAAAAAAAAA), bytes.data(), shared.data()};
        while (thread.at < program.code.size()) {
            const Instruction& instruction = program.code[thread.at++];
            bool runs = instruction.guard < 0 || bool(thread.registers[instruction.guard] & 1) != instruction.negated;
            if (runs) instruction.run(thread, instruction);
        }
    });
}

}  // namespace ptx
