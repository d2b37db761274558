// Finds speech in a recording: frames of 32 ms, each with the network's state from the frame before.
//   voice_activity silero_vad.onnx RECORDING.wav        (16 kHz, 16-bit PCM)
#include <quern/quern.hpp>

#include <cstdio>

#include "support/wav.hpp"

int main(int argc, char** argv) {
    if (argc != 3) return std::fprintf(stderr, "usage: %s silero_vad.onnx RECORDING.wav\n", argv[0]), 64;
    try {
        constexpr std::size_t frame = 512, context = 64;
        Wav wav = load_wav(argv[2]);
        if (wav.rate != 16000) quern::raise(quern::ErrorCode::invalid_argument, "the recording has to be at 16000 Hz");

        quern::Engine engine = quern::Model::load(argv[1]).compile({.threads = 1});
        quern::Session session(engine);
        std::int64_t rate = wav.rate;
        std::vector<float> input(context + frame), state(2 * 128);
        session.bind("sr", quern::Tensor::borrow(std::span(&rate, 1), {}));
        session.bind("input", quern::Tensor::borrow(std::span(input), {1, context + frame}));
        session.bind("state", quern::Tensor::borrow(std::span(state), {2, 1, 128}));

        constexpr double step = double(frame) / 16000;
        double begin = -1, last = 0, now = 0;  // a pause under 0.2 s does not end a stretch of speech
        std::string bar;
        for (std::size_t at = 0; at + frame <= wav.samples.size(); at += frame, now += step) {
            std::copy(input.end() - context, input.end(), input.begin());
            std::copy_n(wav.samples.begin() + std::ptrdiff_t(at), frame, input.begin() + context);
            session.run();
            float speech = session.output("output").data<float>()[0];
            auto next = session.output("stateN").data<float>();
            std::copy(next.begin(), next.end(), state.begin());

            bar += " .:-=+*#%@"[int(speech * 9.99f)];
            if (speech > 0.5f) {
                if (begin < 0) begin = now;
                last = now + step;
            } else if (begin >= 0 && now - last > 0.2) {
                std::printf("speech from %.2f s to %.2f s\n", begin, last);
                begin = -1;
            }
        }
        if (begin >= 0) std::printf("speech from %.2f s to %.2f s\n", begin, last);
        std::printf("%.2f s, 32 ms a character: [%s]\n", now, bar.c_str());
    } catch (const quern::Error& e) {
        return std::fprintf(stderr, "%s\n", e.what()), 1;
    }
}
