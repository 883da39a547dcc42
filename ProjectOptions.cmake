# Flags travel by linking project_options (every target of ours) and project_warnings (never generated code).
add_library(project_options INTERFACE)
target_include_directories(project_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(project_options INTERFACE _GNU_SOURCE SKEP_VERSION="${PROJECT_VERSION}")
target_compile_options(project_options INTERFACE -fno-omit-frame-pointer)

if(CMAKE_BUILD_TYPE STREQUAL "Release")
  target_compile_options(project_options INTERFACE -O2 -g -fstack-protector-strong -D_FORTIFY_SOURCE=2)
  target_link_options(project_options INTERFACE -Wl,-z,relro,-z,now)
else()
  target_compile_definitions(project_options INTERFACE SKEP_CHECK_SLOW)
endif()
if(SKEP_SANITIZE)
  # gcc's flow analysis sees the checks that the sanitizers put in and warns of what cannot happen.
  target_compile_options(project_options INTERFACE -fsanitize=${SKEP_SANITIZE} -fno-sanitize-recover=all
    $<$<C_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(project_options INTERFACE -fsanitize=${SKEP_SANITIZE})
endif()
if(SKEP_COVERAGE)
  target_compile_options(project_options INTERFACE --coverage)
  target_link_options(project_options INTERFACE --coverage)
endif()
if(SKEP_FUZZ)
  target_compile_options(project_options INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  target_link_options(project_options INTERFACE -fsanitize=address,undefined)
endif()

add_library(project_warnings INTERFACE)
target_compile_options(project_warnings INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wundef -Wvla -Wformat=2
  -Werror
  # What one compiler alone says and what is no mistake here: texts for people are cut to their buffer on purpose (snprintf);
  # CHECK(!"text"); partial initialisers made by a library's macros.
  $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation>
  $<$<C_COMPILER_ID:Clang>:-Wno-string-conversion>
  $<$<C_COMPILER_ID:Clang>:-Wno-missing-field-initializers>)

# skep_library(NAME SOURCES ... LINK ...): a static library of ours.
function(skep_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC project_options ${ARG_LINK} PRIVATE project_warnings)
endfunction()

# skep_program(NAME SOURCES ... LINK ...): an executable of ours, in bin/.
function(skep_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE project_options project_warnings ${ARG_LINK})
  install(TARGETS ${name} RUNTIME)
endfunction()

# Seconds; the sanitizers cost a factor.
if(SKEP_SANITIZE)
  set(SKEP_TEST_TIMEOUT 300)
else()
  set(SKEP_TEST_TIMEOUT 120)
endif()

# skep_test(NAME SOURCES ... LINK ... [LABELS ...]): a cmocka program, run by ctest. Its folder under tests/ (unit, component,
# integration, security) is always one of its labels. Give `sandbox` to a test that makes namespaces, traces processes or forks
# from threads, and `no-tsan` to one that is meaningless under the thread sanitizer: the tsan preset leaves both out.
function(skep_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK;LABELS" ${ARGN})
  file(RELATIVE_PATH folder ${CMAKE_SOURCE_DIR}/tests ${CMAKE_CURRENT_SOURCE_DIR})
  string(REGEX REPLACE "/.*" "" folder "${folder}")
  list(APPEND ARG_LABELS ${folder})
  list(REMOVE_DUPLICATES ARG_LABELS)
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE project_options project_warnings ${ARG_LINK} PkgConfig::cmocka)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${SKEP_TEST_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

# The target that builds every fuzz target: all that the fuzz preset builds.
add_custom_target(fuzz_targets)
set(SKEP_FUZZ_SECONDS 10 CACHE STRING "How long each fuzz target runs in a SKEP_FUZZ build")
math(EXPR SKEP_FUZZ_TIMEOUT "${SKEP_FUZZ_SECONDS} + 110")

# skep_fuzz(NAME SOURCES ... LINK ... CORPUS DIR): a libFuzzer target. In other builds it links tests/lib/fuzz_replay.c
# instead and runs the corpus once, so that every build checks every known input.
function(skep_fuzz name)
  cmake_parse_arguments(ARG "" "CORPUS" "SOURCES;LINK" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE project_options project_warnings ${ARG_LINK})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
  add_dependencies(fuzz_targets ${name})
  if(SKEP_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_test(NAME ${name} COMMAND ${name} -max_total_time=${SKEP_FUZZ_SECONDS} -rss_limit_mb=1024 -artifact_prefix=${CMAKE_BINARY_DIR}/
      ${CMAKE_BINARY_DIR}/fuzz/${name}.new ${ARG_CORPUS})
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz/${name}.new)
  else()
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/lib/fuzz_replay.c)
    add_test(NAME ${name} COMMAND ${name} ${ARG_CORPUS})
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${SKEP_FUZZ_TIMEOUT} LABELS fuzz)
endfunction()
