import cowrite from './cowrite.ts'
import homeworkHelper from './homework-helper.ts'
import maratang from './maratang.ts'
import moviesir from './moviesir.ts'
import spc from './spc.ts'

/** The tables that are served when no other is named. */
export const tables = [homeworkHelper, cowrite, moviesir, maratang, spc]
