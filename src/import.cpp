#include <quern/import/exporter-inl.hpp>
#include <quern/import/importer-inl.hpp>
