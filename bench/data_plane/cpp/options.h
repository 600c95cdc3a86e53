// Command lines of the form --name=value. An unknown name ends the program.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

namespace bench {

class Options {
 public:
  // `defaults` has every option there is.
  Options(int argc, char** argv, std::map<std::string, std::string> defaults) : values_(std::move(defaults)) {
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      const size_t equals = argument.find('=');
      const std::string name = equals == std::string::npos ? "" : argument.substr(0, equals);
      if (name.rfind("--", 0) != 0 || values_.count(name.substr(2)) == 0) {
        std::fprintf(stderr, "unknown option: %s\n", argument.c_str());
        std::exit(2);
      }
      values_[name.substr(2)] = argument.substr(equals + 1);
    }
  }

  const std::string& Text(const std::string& name) const { return values_.at(name); }
  long Number(const std::string& name) const { return std::atol(values_.at(name).c_str()); }

 private:
  std::map<std::string, std::string> values_;
};

}  // namespace bench
