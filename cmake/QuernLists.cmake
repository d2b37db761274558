# The backends' lists of kernels, from kernels/families.inc and kernels/<family>/kernels.inc: a family is a folder and a line.
# Writes lists/core.hpp (installed: the header-only form needs it) and the units of the cpu and cuda backends.
set(families_inc ${PROJECT_SOURCE_DIR}/kernels/families.inc)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${families_inc})
set(families)
file(STRINGS ${families_inc} family_lines REGEX "^QUERN_FAMILY\\(")
foreach(line ${family_lines})
  string(REGEX REPLACE "^QUERN_FAMILY\\(([a-z0-9_]+), *([a-z0-9_]+)\\).*" "\\1;\\2" parts "${line}")
  list(GET parts 0 family)
  list(GET parts 1 space_${family})
  list(APPEND families ${family})
  set(dir ${PROJECT_SOURCE_DIR}/kernels/${family})
  set(lines_${family})
  if(EXISTS ${dir}/kernels.inc)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${dir}/kernels.inc)
    file(STRINGS ${dir}/kernels.inc kernel_lines REGEX "^QUERN_KERNEL\\(")
    set(rank 0)
    foreach(k ${kernel_lines})
      math(EXPR rank "${rank} + 1")
      if(NOT k MATCHES "^QUERN_KERNEL\\((core|onednn|cuda), *([a-z0-9_]+)\\) *$")
        message(FATAL_ERROR "kernels/${family}/kernels.inc: '${k}': QUERN_KERNEL(core | onednn | cuda, entry) is accepted")
      endif()
      list(APPEND lines_${family} "${CMAKE_MATCH_1}:${CMAKE_MATCH_2}:${rank}")
    endforeach()
  endif()
endforeach()

# quern_lists(kinds includes declarations arrays refs): C++ text of the lines that begin with one of `kinds`.
function(quern_lists kinds includes declarations arrays refs)
  set(i "")
  set(d "")
  set(a "")
  set(r "")
  foreach(family ${families})
    set(entries "")
    foreach(line ${lines_${family}})
      string(REPLACE ":" ";" parts ${line})
      list(GET parts 0 kind)
      list(GET parts 1 entry)
      list(GET parts 2 rank)
      if(NOT kind IN_LIST kinds)
        continue()
      endif()
      string(APPEND entries "{&${space_${family}}::${entry}, ${rank}}, ")
      if(kind STREQUAL "core")  # defined in whichever header of the folder names it as an Entry
        file(GLOB headers RELATIVE ${PROJECT_SOURCE_DIR}/kernels ${PROJECT_SOURCE_DIR}/kernels/${family}/*.hpp)
        set(found)
        foreach(h ${headers})
          file(STRINGS ${PROJECT_SOURCE_DIR}/kernels/${h} at REGEX "Entry<Problem> ${entry}[ {]")
          if(at)
            set(found ${h})
          endif()
        endforeach()
        if(NOT found)
          message(FATAL_ERROR "kernels/${family}/kernels.inc: no header there defines Entry<Problem> ${entry}")
        endif()
        string(APPEND i "#include <quern/kernels/${found}>\n")
      else()
        set(header ${family}/${family}.hpp)
        if(EXISTS ${PROJECT_SOURCE_DIR}/kernels/${family}/problem.hpp)
          set(header ${family}/problem.hpp)
        endif()
        string(APPEND i "#include <quern/kernels/${header}>\n")
        string(APPEND d "namespace ${space_${family}} { extern const Entry<Problem> ${entry}; }\n")
      endif()
    endforeach()
    if(entries)
      string(APPEND a "inline constexpr RankedEntry ${family}_lines[] = {${entries}};\n")
      string(APPEND r "${family}_lines, ")
    else()
      string(APPEND r "{}, ")
    endif()
  endforeach()
  set(${includes} "${i}" PARENT_SCOPE)
  set(${declarations} "${d}" PARENT_SCOPE)
  set(${arrays} "${a}" PARENT_SCOPE)
  set(${refs} "${r}" PARENT_SCOPE)
endfunction()

quern_lists("core" i d a r)
file(CONFIGURE OUTPUT ${QUERN_GENERATED}/include/quern/lists/core.hpp CONTENT
"// Written by CMake from kernels/families.inc and kernels/*/kernels.inc.
#pragma once
${i}#include <quern/kernels/kernel.hpp>
QUERN_BEGIN
namespace core::lists {
${a}inline constexpr Backend backend{\"core\", {${r}}};
}
QUERN_END
" @ONLY)

# quern_backend_unit(file name kinds rest): a unit that defines <name>::backend().
function(quern_backend_unit file name kinds declarations rest)
  quern_lists("${kinds}" i d a r)
  string(REPLACE "inline constexpr" "static const" a "${a}")
  file(CONFIGURE OUTPUT ${file} CONTENT
"#include <quern/kernels/kernel.hpp>
${i}QUERN_BEGIN
${d}namespace ${name} {
${declarations}${a}QUERN_API const Backend& backend() noexcept {
    static const Backend it{\"${name}\", {${r}}${rest}};
    return it;
}
}
QUERN_END
" @ONLY)
endfunction()
